"""What the report of one run shows, as plain values."""

import pytest
import torch
from effconv_core import SizePlan
from effconv_core.report import view
from effconv_core.runs.reader import Run

LAYER = {"channels": [4, 6], "groups": 2, "kernel_size": [3, 3]}


def rows(phase, values, name="soft_sizes"):
    return [{"phase": phase, "global_step": i + 1, name: v} for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("layer", "size", "count"),
    [
        (LAYER, 5, 4 // 2 * 6 * 25),
        (LAYER, (1, 7), 4 // 2 * 6 * 7),
        ({**LAYER, "kernel_size": [1, 3]}, 5, 4 // 2 * 6 * 5),
        (LAYER, (3,), None),
        ({}, 5, None),
    ],
)
def test_weights_of_a_layer_are_counted(layer, size, count):
    assert view.parameters_of(layer, size) == count


def test_a_layer_has_its_sizes_and_its_weights():
    plan = SizePlan({"1": 5, "2": 3}, {"1": 4.8, "2": 4.4})
    network = {"layers": {"1": LAYER}}
    first, second = view.layer_rows(Run("a", plan=plan, network=network))
    assert (first["taps"], first["soft"], first["original"]) == ((5,), (4.8,), (3, 3))
    assert (first["parameters"], first["adjusted"]) == (300, None)
    assert (second["parameters"], second["adjusted"]) == (None, 4)
    assert view.layer_rows(Run("a")) == []


def test_courses_are_those_of_the_last_number_of_sizes():
    plan = SizePlan({"1": 5, "2": (3, 7)})
    read = rows("search", [[1.0], [3.0, 3.0, 3.0], [float("nan"), 3.0, 3.0], [5.0, 2.0, 8.0]])
    read += rows("train", [[9.0, 9.0, 9.0]])
    found = view.courses(Run("a", rows=read, plan=plan))
    assert [(c["label"], c["final"]) for c in found] == [
        ("1", 5),
        ("2 axis 0", 3),
        ("2 axis 1", 7),
    ]
    assert [(c["first"], c["last"]) for c in found] == [(3.0, 5.0), (3.0, 2.0), (3.0, 8.0)]
    assert found[0]["steps"] == (2, 4)


@pytest.mark.parametrize(
    ("run", "labels"),
    [
        ({"plan": SizePlan({"1": 5})}, ["soft size 1", "soft size 2"]),
        ({"network": {"layers": {"a": {}, "b": {}}}}, ["a", "b"]),
        ({}, ["soft size 1", "soft size 2"]),
    ],
)
def test_soft_sizes_that_no_plan_names_have_labels_too(run, labels):
    found = view.courses(Run("a", rows=rows("search", [[1.0, 2.0]]), **run))
    assert [(c["label"], c["final"]) for c in found] == [(label, None) for label in labels]


def test_without_soft_sizes_there_is_no_course():
    assert view.courses(Run("a", rows=rows("search", [0.5], "loss"))) == []
    assert view.courses(Run("a", rows=rows("search", [[]]))) == []


def test_networks_have_what_is_known_of_them():
    run = Run(
        "a",
        rows=rows("train", [2.0, 3.0], "seconds"),
        network={"parameters": 90},
        plan=SizePlan({"1": 3}, cost=100),
        networks={"learned": {"test_accuracy": float("nan")}},
    )
    learned, original = view.network_rows(run)
    assert (learned["parameters"], learned["accuracy"]) == (100, None)
    assert (learned["epochs"], learned["seconds"], learned["trained"]) == (2, 5.0, True)
    assert (original["parameters"], original["trained"]) == (90, False)


def test_budgets_have_the_distance_of_the_plan():
    old = SizePlan({"1": 3}, cost=110, budget=100)
    (row,) = view.budget_rows(Run("a", plan=old))
    assert (row["counts"], row["at_most"]) == ("parameters", False)
    assert row["off"] == pytest.approx(0.1)
    assert view.budget_rows(Run("a")) == view.budget_rows(Run("a", plan=SizePlan({"1": 3}))) == []


def test_an_epoch_has_means_and_its_last_parameter_count():
    read = [
        {"phase": "search", "epoch": 0, "loss": 1.0, "parameters": 10},
        {"phase": "search", "epoch": 0, "loss": 3.0, "parameters": 12, "seconds": 4.0},
        {"phase": "comparison", "epoch": 0, "seconds": 9.0},
        {"phase": "train", "epoch": 0, "loss": 9.0, "epoch_loss": 0.0, "accuracy": None},
        {"phase": "another", "loss": float("nan")},
    ]
    first, second, third = view.epoch_rows(Run("a", rows=read))
    assert (first["loss"], first["parameters"], first["seconds"]) == (2.0, 12, 4.0)
    assert (second["loss"], second["accuracy"], second["parameters"]) == (0.0, None, None)
    assert (third["phase"], third["epoch"], third["loss"]) == ("another", 0, None)


def test_what_is_left_out_is_counted():
    settings = {str(i): "x" for i in range(view.MOST_LINES + 1)}
    (sentence,) = view.left_out(Run("a"), settings)
    assert f"{view.MOST_LINES + 1:,}" in sentence
    assert f"{view.MOST_LINES:,}" in sentence
    assert view.left_out(Run("a"), {}) == []


def test_curves_are_in_percent_where_they_count_hits():
    read = [
        {"phase": "train", "global_step": 1, "accuracy": 0.25, "loss": 0.5},
        {"phase": "baseline", "global_step": 1, "accuracy": 0.5},
    ]
    loss, accuracy = view.curves(Run("a", rows=read))
    assert len(loss.lines) == 1
    assert ["25%" in line["words"] for line in accuracy.lines] == [True, False]
    assert view.curves(Run("a")) == []


def test_the_cost_is_drawn_beside_the_budget():
    read = rows("search", [90.0, 100.0], "parameters")
    chart = view.cost_chart(Run("a", rows=read, plan=SizePlan({"1": 3}, cost=100, budget=110)))
    assert chart.level["words"] == "110"
    assert view.cost_chart(Run("a", rows=read, settings={"budget": "5"})).level is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (3661, "1 h 1 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_a_time_has_its_two_largest_units(seconds, said):
    assert view.duration(seconds) == said


@pytest.mark.parametrize(
    ("size", "said"), [(3, "3"), ((3, 3), "3"), ((1, 7), "1x7"), ([2, 3, 3], "2x3x3"), ((5,), "5")]
)
def test_a_size_is_one_number_where_all_axes_are_equal(size, said):
    assert view.size_words(size) == said


def test_settings_are_flat_and_text():
    assert view.flat({"a": {"b": {"c": 1}}, "d": None}) == {"a.b.c": "1", "d": "None"}


@pytest.mark.parametrize(
    ("run", "named"),
    [
        ({"settings": {"model": "m", "data": "d", "recipe": "r"}}, {"m", "d", "r"}),
        ({"network": {"class": "ResNet"}}, {"ResNet"}),
        ({"plan": SizePlan({"1": 3}, model="Net")}, {"Net"}),
    ],
)
def test_a_run_is_described_by_what_is_known(run, named):
    assert named <= set(view.about(Run("a", **run)).rstrip(".").split())
    assert view.about(Run("a"))


def test_a_whole_run_has_its_values_in_one_place():
    plan = SizePlan({"1": 5}, {"1": 5.2}, cost=100, budget=110)
    read = rows("search", [[4.0], [5.2]]) + rows("search", [2.0, 3.0], "seconds")
    read.append({"phase": "comparison", "global_step": 1, "seconds": 1.5})
    kernels = {"1": torch.ones(2, 3, 5, 5)}
    found = view.describe(Run("a", rows=read, plan=plan, kernels=kernels), "title")
    assert found["title"] == "title"
    assert (found["search_epochs"], found["search_seconds"]) == (2, 6.5)
    assert found["search_parts"] == (5.0, 1.5)
    assert found["track"] == 5
    assert found["kernels"]["1"]["count"] == 6
    assert [course["label"] for course in found["courses"]] == ["1"]
    assert found["layers"][0]["parameters"] == 150
    assert found["evidence"] == found["left_out"] == []
