"""Sweeps: every seed, budget and recipe is a run, and how they stand is told."""

import io
import json

import pytest
from rich.console import Console

from tests.toy_runs import counting
from tools.queue.run_list import fail, write_list
from tools.queue.sweep import LIST, Search, runs_of, status_command


def test_a_sweep_is_every_seed_budget_and_recipe_and_refuses_what_a_search_refuses():
    options = Search(data="demo", seeds=(0, 1), budgets=(9000, 10684), recipes=("bank", "paper"))
    runs = runs_of(options, ["--train-epochs", "1"])
    assert len({run.name for run in runs}) == 8
    assert runs[0].name == "demo-demo-9000-bank-seed0"
    assert runs[7].arguments["arguments"] == [
        "demo",
        "--recipe=paper",
        "--seed=1",
        "--search.seed=1",
        "--budget=10684",
        "--train-epochs",
        "1",
    ]
    with pytest.raises(ValueError, match="recipe 'best' does not exist"):
        runs_of(Search(data="demo", recipes=("best",)), [])


def test_how_runs_stand_is_told_and_nothing_of_it_reaches_the_terminal_raw(tmp_path):
    write_list(tmp_path / LIST, counting(3))
    fail(tmp_path / "run1", "ValueError: \x1b[2J[red]too hot")
    for given in (tmp_path, tmp_path / LIST):
        console = Console(file=io.StringIO(), width=200)
        assert status_command([str(given)], console) == 0
        said = console.file.getvalue()
        assert said.count("waiting") == 2
        assert "\\x1b[2J[red]too hot" in said
        assert "\x1b" not in said


def test_a_list_that_is_none_is_refused_with_its_name(tmp_path):
    (tmp_path / LIST).write_text(json.dumps([{"name": "../up", "function": "a:b"}]))
    with pytest.raises(ValueError, match=LIST):
        status_command([str(tmp_path)], Console(file=io.StringIO()))
