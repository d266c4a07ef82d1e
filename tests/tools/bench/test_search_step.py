"""A search step beside a training step."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from tools.bench.search_step import SearchStepOptions, run, time_pairs

ROOT = Path(__file__).parents[3]


def test_a_result_has_the_entries_of_the_committed_ones(tmp_path):
    out = tmp_path / "a.json"
    options = SearchStepOptions(batch_size=2, pairs=2, warmups=0, size=3, device="cpu", out=out)
    run(options, Console(quiet=True))
    ours = json.loads(out.read_text())
    theirs = json.loads((ROOT / "results/search-step-paper-cpu.json").read_text())
    assert list(ours) == list(theirs)
    assert ours["settings"].keys() == theirs["settings"].keys()
    assert ours["parameters"] < theirs["parameters"]  # of sizes 3 and 5
    assert {name: len(times) for name, times in ours["all_seconds"].items()} == {
        "plain": 2,
        "search": 2,
    }


def test_a_size_that_no_search_starts_at_is_refused():
    with pytest.raises(ValueError, match="size is 7"):
        time_pairs(SearchStepOptions(size=7, device="cpu"))
