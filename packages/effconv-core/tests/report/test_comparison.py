"""What runs have in common, and in what they differ."""

import pytest
from effconv_core import SizePlan
from effconv_core.report.comparison import (
    charts,
    compare,
    differing,
    outcome,
    side_by_side,
    trained_phase,
    warnings,
)
from effconv_core.runs.reader import Run


def run(accuracy=0.8, sizes=None, *, phase="train", **changes):
    rows = [
        {"phase": "search", "global_step": 1, "seconds": 2.0},
        {"phase": "comparison", "global_step": 1, "seconds": 3.0},
        {"phase": phase, "global_step": 1, "seconds": 5.0, "accuracy": 0.5, "loss": 1.0},
    ]
    content = {
        "settings": {"model": "m", "budget": 100, "train": {"epochs": 2}},
        "environment": {"data": "d", "device": "cpu"},
        "rows": rows,
        "plan": SizePlan({"1": 3, "2": 5} if sizes is None else sizes),
        "networks": {
            "learned": {"parameters": 100, "test_accuracy": accuracy},
            "original": {"parameters": 90, "test_accuracy": 0.7},
        },
    }
    return Run("run", **{**content, **changes})


def test_an_outcome_has_gain_and_times():
    row = outcome("a", run())
    assert row["gain"] == pytest.approx(0.1)
    assert (row["search_epochs"], row["search_seconds"]) == (1, 5.0)
    assert row["learned"]["parameters"] == 100
    assert outcome("a", run(networks={"learned": {"test_accuracy": 0.8}}))["gain"] is None


def test_where_only_the_original_was_trained_it_is_the_outcome():
    alone = run(phase="baseline")
    assert trained_phase(alone) == "baseline"
    row = outcome("a", alone)
    assert row["gain"] is None
    assert row["learned"]["accuracy"] == 0.7
    both = run(rows=[{"phase": phase, "global_step": 0} for phase in ("train", "baseline")])
    assert trained_phase(both) == trained_phase(run(rows=[])) == "train"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"environment": {"data": "e", "device": "cpu"}}, "data"),
        ({"environment": {"data": "d", "device": "cuda"}}, "device"),
        ({"settings": {"model": "n", "budget": 100, "train": {"epochs": 2}}}, "model"),
        ({"settings": {"model": "m", "budget": 120, "train": {"epochs": 2}}}, "budget"),
        ({"settings": {"model": "m", "budget": 100, "train": {"epochs": 9}}}, "other settings"),
    ],
)
def test_what_makes_figures_incomparable_is_one_warning(changes, named):
    (sentence,) = warnings({"a": run(), "b": run(**changes)})
    assert named in sentence
    assert warnings({"a": run(), "b": run(0.9, {"1": 7})}) == []


def test_a_run_without_a_budget_is_no_other_budget():
    without = run(settings={"model": "m", "train": {"epochs": 2}})
    assert warnings({"a": run(), "b": without}) == []


def test_sizes_lie_side_by_side():
    runs = {"a": run(), "b": run(sizes={"1": 3, "3": (1, 7)}), "c": run(plan=None)}
    assert side_by_side(runs) == [
        {"name": "1", "cells": [(3,), (3,), ()], "differs": False},
        {"name": "2", "cells": [(5,), (), ()], "differs": True},
        {"name": "3", "cells": [(), (1, 7), ()], "differs": True},
    ]


def test_only_what_differs_is_listed_with_each_value():
    tables = {"a": {"k": "1", "same": "x"}, "b": {"k": "2", "same": "x", "new": "y"}}
    assert differing(tables) == [("k", ["1", "2"]), ("new", ["-", "y"])]


def test_charts_have_a_line_for_each_run():
    runs = {"a": run(), "b": run(0.9)}
    dots, accuracy, loss = charts(runs)
    assert len(dots.lines) == 4
    assert [line["title"] for line in accuracy.lines] == ["a", "b"]
    assert [line["title"] for line in loss.lines] == ["a", "b"]
    assert charts({"a": run(rows=[], networks={})}) == []


def test_a_comparison_counts_the_layers_that_differ():
    found = compare({"a": run(), "b": run(sizes={"1": 3, "2": 9})})
    assert (found["different"], found["track"]) == (1, 9)
    assert found["settings"] == found["environment"] == []
