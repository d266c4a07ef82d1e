"""The plans that are given, and not searched."""

import os
from pathlib import Path

import pytest
from effconv_core import SearchableCNN

from tools.versus.runs import given_plans
from tools.versus.scales import SCALES

DATA = os.environ.get("EFFCONV_DATA")

needs_cifar10 = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "cifar10" / "index.json").is_file(),
    reason="EFFCONV_DATA holds no CIFAR-10",
)


@needs_cifar10
@pytest.mark.parametrize("scale", ["smoke", "cpu"])
def test_given_plans_are_at_the_budget_and_differ(scale):
    space, plans = SCALES[scale].space("cpu"), given_plans(scale)
    searchable = SearchableCNN(space.network(0))
    assert list(plans["uniform"].values()) == [3] * len(searchable.layers)
    assert len({tuple(plan.values()) for plan in plans.values()}) == len(plans)
    assert len(plans) == 1 + SCALES[scale].random_plans
    for plan in plans.values():
        assert abs(searchable.cost(list(plan.values())) / space.budget - 1) <= 0.02
