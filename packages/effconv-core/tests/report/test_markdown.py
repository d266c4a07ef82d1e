"""The table, the figure and the Markdown report of a run."""

import json

import pytest
from effconv_core import SizePlan
from effconv_core.report.markdown import (
    adjustment_sentence,
    budget_sentence,
    draw_sizes,
    layer_rows,
    layer_table,
    left_alone_sentence,
    write_report,
)
from effconv_core.runs.metrics import Metrics
from torch import nn

PLAN = SizePlan({"1": 5, "2": (1, 7)}, {"1": 5.2, "2": (1.4, 6.6)}, cost=999, budget=1000)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        nn.Conv2d(6, 6, 3, padding=1),
    )


def budget(**changes):
    record = {"counts": "parameters", "amount": 1000, "at_most": False, "weight": 1.0, "cost": 990}
    return {**record, **changes}


def test_a_row_counts_the_weights_of_a_layer():
    assert layer_rows(network(), PLAN) == [
        ("1", 4, 6, 5, 2 * 6 * 25),
        ("2", 6, 6, (1, 7), 6 * 6 * 7),
    ]


def test_the_table_has_a_row_for_each_layer():
    table = layer_table(network(), PLAN)
    assert table.row_count == 2
    assert list(table.columns[2].cells) == ["5.20", "1.40x6.60"]
    assert list(table.columns[4].cells) == ["300", "252"]


def test_each_budget_is_told_with_the_distance_of_the_plan():
    both = SizePlan({"1": 5}, budgets=[budget(), budget(counts="macs", amount=500, cost=510)])
    sentence = budget_sentence(both)
    assert "-1.00%" in sentence
    assert "+2.00%" in sentence
    assert "macs" in sentence
    assert "510" in sentence


def test_what_rounding_would_have_given_is_told_where_it_was_changed():
    same, other = SizePlan({"1": 5}, {"1": 5.2}), SizePlan({"1": 5, "2": 3}, {"1": 6.6, "2": 3.1})
    assert adjustment_sentence(same) != adjustment_sentence(other)
    assert "1 7 → 5" in adjustment_sentence(other)
    assert "3" not in adjustment_sentence(other)


def test_layers_that_were_not_searched_are_named():
    assert "`0`" in left_alone_sentence(network())
    assert "`1`" not in left_alone_sentence(network())


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "a run"
    folder.mkdir()
    content = {
        "settings": {"model": "resnet", "data": "digits", "recipe": "bank", "k": 7},
        "environment": {"torch": "2.9", "device": "cpu"},
    }
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_a_report_holds_results_times_layers_and_settings(folder):
    metrics = Metrics(folder)
    for phase, seconds in (("search", 2.0), ("search", 4.0), ("train", 9.0)):
        metrics.log(phase, int(seconds), 1, seconds=seconds, soft_sizes=[5.0, 1.0, 7.0])
    metrics.close()
    networks = {"learned": {"parameters": 12345, "test_accuracy": 0.9876}}
    write_report(folder, network(), PLAN, networks, metrics)
    text = (folder / "report.md").read_text()
    for told in ("# a run", "resnet", "digits", "`bank`", "12,345", "98.76%", "2.9", '"k": 7'):
        assert told in text
    assert "2 epoch(s), 3.0 s" in text
    assert "5.0 s" in text  # the mean over all three
    assert "| 1 | 4 → 6 | 5.20 | 5 | 300 |" in text
    assert "sizes.png" not in text


@pytest.mark.parametrize("rows", [0, 1])
def test_a_figure_that_there_is_is_shown(folder, rows):
    metrics = Metrics(folder)
    for number in range(rows):
        metrics.log("search", 0, number, soft_sizes=[5.0, 1.0, 7.0])
    metrics.log("search", 0, 2, loss=1.0)
    draw_sizes(folder / "sizes.png", PLAN, metrics)
    assert (folder / "sizes.png").read_bytes().startswith(b"\x89PNG")
    write_report(folder, network(), PLAN, {}, metrics)
    metrics.close()
    assert "(sizes.png)" in (folder / "report.md").read_text()
