"""A run of the reproduction: its folder, its settings, and the plan that it is given."""

import json
from pathlib import Path

import pytest
from effconv_core import SearchableCNN
from effconv_models import create_model

from tools.reproduce.rows import ALL, EQUAL_COST, SCALES, Row, rows_of
from tools.reproduce.run import check_settings, given_plan, made_with, needed_by, run_name


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("table", ALL)
def test_every_run_has_a_folder_of_its_own(table, scale):
    rows = rows_of(table, scale)
    assert rows
    assert len({run_name(row, 0) for row in rows}) == len(rows)


@pytest.mark.parametrize("recipe", ["found", "paper"])
def test_controls_take_the_plan_of_their_own_recipe(recipe):
    model = create_model("cifar_resnet20")
    searchable = SearchableCNN(model)
    plan = dict(zip(searchable.layers, [5, 4, 2] * 6, strict=True))
    budget = searchable.cost([2, 4, 5] * 6)
    suffix = " paper" if recipe == "paper" else ""
    back, other = (
        Row("cifar10", "cifar_resnet20", budget, kind + suffix)
        for kind in ("reversed", "other seed")
    )
    assert needed_by(back, 4) == [run_name(Row("cifar10", "cifar_resnet20", budget, recipe), 4)]
    assert needed_by(other, 4) == [run_name(Row("cifar10", "cifar_resnet20", budget, recipe), 5)]
    assert list(given_plan(back, model, plan).values()) == [2, 4, 5] * 6
    assert given_plan(other, model, plan) == plan


def test_a_result_of_other_settings_is_refused():
    row = Row("cifar10", "cifar_resnet20", 0.27e6, "found")
    before = json.loads(json.dumps(made_with(row, 0, "cpu")))
    check_settings(before, row, 0, "cpu", Path("x.jsonl"))
    del before["train"]["precision"]  # which came later
    check_settings(before, row, 0, "cpu", Path("x.jsonl"))
    before["train"]["lr"] *= 2
    with pytest.raises(ValueError, match=r"x\.jsonl .*\(train\)"):
        check_settings(before, row, 0, "cpu", Path("x.jsonl"))


@pytest.mark.parametrize("found", [[5, 4, 2] * 6, [3] * 18, [7, 1, 6, 2, 3, 4] * 3])
def test_controls_of_equal_cost_cost_what_the_found_plan_does(found):
    model = create_model("cifar_resnet20")
    searchable = SearchableCNN(model)
    plan, cost = dict(zip(searchable.layers, found, strict=True)), searchable.cost(found)
    made = {}
    for kind in EQUAL_COST:
        row = Row("cifar10", "cifar_resnet20", 0.66e6, kind)
        made[kind] = list(given_plan(row, model, plan).values())
        assert searchable.cost(made[kind]) == pytest.approx(cost, rel=0.005)
        assert made[kind] == list(given_plan(row, model, plan).values())
    assert len({tuple(sizes) for sizes in made.values()}) == len(EQUAL_COST)
    assert max(made["even paper"]) - min(made["even paper"]) <= 2


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("sizes", ["paper", "found"])
def test_a_scale_searches_in_the_precision_in_which_it_trains(scale, sizes):
    made = made_with(Row("mnist", "cifar_resnet20", 0.66e6, sizes), 0, scale)
    assert made["search"]["precision"] == made["train"]["precision"]
    assert (made["train"]["precision"] == "bfloat16") == (scale in ("gpu", "cpu-bfloat16"))
