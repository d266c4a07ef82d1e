"""The multi-resolution paper's tables: which runs are behind them, and what the page shows."""

import json
import os
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from effconv_core.io.schemas import ConfigFile
from effconv_models import MultiResolutionNet

from tools.reproduce import mixtures, multi_resolution, multi_resolution_page
from tools.reproduce.mixtures import (
    NEEDED,
    Mixture,
    found_runs,
    needed,
    options_of,
    read_found,
)
from tools.train.multi_resolution import MultiResolutionOptions

KEPT = Path(__file__).parents[3] / "results" / "multi-resolution" / "cpu-cifar10-10x16"


def test_each_run_has_a_name_of_its_own_and_the_papers_options():
    every = {mixture for needed in NEEDED.values() for mixture in needed}
    assert len({mixture.name for mixture in every}) == len(every) == 8
    for mixture in every:
        given = options_of(mixture, "paper", Path("runs"), "cpu")
        assert replace(
            given, layers=10, channels=64, block="conv", learned_depth=False, baselines=False,
            name="", device="cpu",
        ) == replace(MultiResolutionOptions(), device="cpu")  # fmt: skip
        with torch.device("meta"):
            MultiResolutionNet(given.layers, given.channels, block=given.block)


def test_the_kept_run_stands_in_its_column_alone():
    run = read_found(KEPT)
    assert [m for m in mixtures.COLUMNS.values() if run.gives(m)] == [mixtures.COLUMNS[16]]
    assert not run.gives(Mixture(10, 16, learned_depth=True))
    assert run.depth is None
    for words in (
        "4,000 pictures", "6 of 400 epochs", "300 steps", "mixing rate 0.04", "batches of 64",
        "rate 0.05", "2 of 40",
    ):  # fmt: skip
        assert words in run.reduced()
    whole = asdict(MultiResolutionOptions())
    as_the_paper = replace(run, config=ConfigFile(settings=whole))
    assert as_the_paper.reduced() == as_the_paper.reduced(64) == "124,800 steps"
    assert run.reduced(64).startswith("16 of 64 channels, ")
    page = multi_resolution_page.multi_resolution_page().splitlines()
    [line] = [line for line in page if line.startswith("| Ours | 16 |")]
    assert f"| {100 * run.outcomes['learned']['accuracy']:.2f} |" in line
    assert "*83.9*" in line


def test_reduced_runs_have_few_channels_but_where_a_table_is_about_them():
    assert needed("table2", "cpu") == list(mixtures.COLUMNS.values())
    assert needed("table1", "cpu") == [mixtures.COLUMNS[16]]
    assert [mixture.name for mixture in needed("table4", "cpu")] == [
        "cifar10-10x16", "cifar10-8x16", "cifar10-8x16-mbconv6",
    ]  # fmt: skip
    assert needed("table4", "paper") == list(mixtures.ERRORS.values())


def test_a_row_shows_a_narrow_run_where_there_is_none_of_its_own():
    runs = [read_found(KEPT)]
    page = multi_resolution_page
    assert page._of(runs, mixtures.COLUMNS[64]) == runs
    assert page._of(runs, mixtures.COLUMNS[64], narrowed=False) == [None]
    assert page._of(runs, mixtures.DEPTHS[10, True]) == [None]
    whole = replace(runs[0], config=ConfigFile(settings=asdict(MultiResolutionOptions())))
    whole.config.settings["baselines"] = True
    assert page._of([*runs, whole], mixtures.COLUMNS[64]) == [whole]


def test_a_baseline_needs_a_run_that_has_them(tmp_path):
    place = tmp_path / "run"
    shutil.copytree(KEPT, place)
    config = json.loads((place / "config.json").read_text())
    config["settings"]["baselines"] = False
    (place / "config.json").write_text(json.dumps(config))
    assert not read_found(place).gives(mixtures.COLUMNS[16])
    assert read_found(place).gives(Mixture(10, 16))


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce:multi", *map(str, arguments)])
    return multi_resolution.main()


def test_finished_runs_are_kept_and_collected(tmp_path, monkeypatch):
    begun = []

    def run(given, console):
        begun.append(given.name)
        folder = given.runs / given.name
        shutil.copytree(KEPT, folder)
        (folder / "result.json").write_text("{}")

    monkeypatch.setattr(multi_resolution, "run", run)
    monkeypatch.setattr(multi_resolution, "check_set", lambda name: None)
    options = ("--runs", tmp_path / "runs", "--out", tmp_path / "out", "--device", "cpu")
    for _ in range(2):
        assert run_main(monkeypatch, "table2", *options) == 0
    assert begun == ["cifar10-10x16", "cifar10-10x32", "cifar10-10x64"]
    assert [run.path.name for run in found_runs(tmp_path / "out")] == [
        f"cpu-{name}" for name in begun
    ]
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "out" / f"cpu-{begun[1]}" / "mixing.json").unlink()
    assert run_main(monkeypatch, "table2", *options) == 0
    assert begun[3:] == ["cifar10-10x32"]


def test_the_kept_run_lies_where_the_command_puts_it():
    assert KEPT.name == f"cpu-{mixtures.COLUMNS[16].name}"


@pytest.mark.skipif(
    not (Path(os.environ.get("EFFCONV_DATA", "")) / "cifar10" / "index.json").is_file(),
    reason="EFFCONV_DATA has no cifar10",
)
def test_a_small_table_runs_whole(tmp_path, monkeypatch):
    small = Mixture(5, 4, learned_depth=True, baselines=True)
    monkeypatch.setattr(multi_resolution, "needed", lambda table, scale: [small])
    options = ("--runs", tmp_path, "--scale", "smoke", "--device", "cpu")
    assert run_main(monkeypatch, "table1", *options) == 0
    run = read_found(tmp_path / "smoke" / small.name)
    assert run.gives(small)
    assert set(mixtures.OURS.values()) == set(run.outcomes)
    assert 2 <= run.depth <= 5
    before = (tmp_path / "smoke" / small.name / "result.json").stat().st_mtime_ns
    assert run_main(monkeypatch, "table1", *options) == 0
    assert (tmp_path / "smoke" / small.name / "result.json").stat().st_mtime_ns == before
