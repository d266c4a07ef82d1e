"""How much of a plan was filled in, in words."""

import dataclasses
import json

import pytest
from effconv_core import SearchableCNN, SizePlan, recipe
from effconv_core.filling import filling_sentence
from torch import nn


def searchable_body():
    body = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(7)]
    return SearchableCNN(nn.Sequential(*body), recipe("paper", count="searched", b=0.0))


@pytest.mark.parametrize(
    ("soft", "budget", "filled", "warned"),
    [(3.0, 54, 0, False), (3.4, 61, 1, False), (3.0, 58.5, 4, False), (3.0, 96, 6, True)],
)
def test_a_plan_says_how_much_of_it_was_filled_in(soft, budget, filled, warned):
    searchable = searchable_body()
    soft_sizes = [soft] * 6
    sizes = searchable.nearest_sizes(soft_sizes, budget)
    plan = searchable.plan_of(sizes, soft_sizes, budget)
    assert (plan.filled_in, plan.budgets[0]["rounded"]) == (filled, 54)
    sentence = filling_sentence(plan)
    assert f"{filled} of 6 sizes" in sentence
    assert f"{54 / budget - 1:+.1%}" in sentence
    assert ("Warning" in sentence) == warned
    assert SizePlan.from_json(plan.to_json()) == plan


def test_a_plan_of_an_earlier_release_does_not_know_what_was_filled_in():
    plan = searchable_body().plan(54)
    content = json.loads(plan.to_json())
    del content["filled_in"]
    for budget in content["budgets"]:
        del budget["rounded"]
    before = SizePlan.from_json(json.dumps(content))
    assert before.sizes == plan.sizes
    assert before.filled_in is None
    assert filling_sentence(before) == ""
    with pytest.raises(ValueError, match="beside its sizes"):
        dataclasses.replace(plan, filled_in=-1)
