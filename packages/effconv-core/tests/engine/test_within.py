"""Plans within a budget that have given proportions."""

import itertools

import numpy as np
import pytest
from effconv_core import Budget, SearchableCNN, recipe
from effconv_core.engine.within import PlansWithin
from torch import nn


def searchable(layers=3, allowed=range(1, 8), **options):
    """A network whose searched layers cost the square of their size each."""
    convs = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(layers + 1)]
    config = recipe("bank", count="searched", tolerance=0.1)
    return SearchableCNN(nn.Sequential(*convs), config, allowed=allowed, **options)


def cost(plan):
    return sum(size**2 for size in plan)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_a_plan_has_the_proportions_whatever_their_scale(scale):
    within = PlansWithin(searchable(2), Budget(20, at_most=True))
    assert within.nearest(scale * np.array([2.0, 4.0])) == (2, 4)
    assert within.nearest(scale * np.array([4.0, 2.0])) == (4, 2)


def test_every_plan_is_within_the_budget_and_drawn_ones_differ():
    within = PlansWithin(searchable(), 50)
    plans = within.random(6, seed=3)
    assert 1 < len(plans) <= 6
    assert len(set(plans)) == len(plans)
    assert all(45 <= cost(plan) <= 55 for plan in plans)
    assert plans == PlansWithin(searchable(), 50).random(6, seed=3)
    assert plans != within.random(6, seed=4)


def test_no_more_plans_are_drawn_than_there_are():
    within = PlansWithin(searchable(2), Budget(8, at_most=True))
    there_are = {p for p in itertools.product(range(1, 8), repeat=2) if cost(p) <= 8}
    assert set(within.random(50, seed=0)) <= there_are


def test_a_slope_rises_from_first_to_last_by_a_factor():
    within = PlansWithin(searchable(), 27)
    assert within.sloped(0.0).tolist() == [3, 3, 3]
    first, middle, last = within.sloped(np.log(4))
    assert (first, middle, last) == (pytest.approx(1.5), 3, pytest.approx(6))


@pytest.mark.parametrize(
    ("budget", "options", "own"),
    [
        (27, {}, [3, 3, 3]),
        (Budget(100, at_most=True), {}, [3, 3, 3]),
        (40, {}, None),
        (Budget(20, at_most=True), {}, None),
        (27, {"allowed": range(2, 7, 2)}, None),
    ],
)
def test_the_networks_own_sizes_are_kept_where_a_plan_may_have_them(budget, options, own):
    assert PlansWithin(searchable(**options), budget).own == own


def test_of_tied_sizes_one_is_free():
    within = PlansWithin(searchable(tie=[["1", "3"]]), 27)
    assert within.free([5, 2, 5]).tolist() == [5, 2]
    assert within.start.tolist() == [3, 3]
    assert within.expanded(np.array([9.0, 0.5])) == [7, 1, 7]
    for first, _, last in within.random(4, seed=0):
        assert first == last


def test_drawn_sizes_are_spread_over_the_logarithm_of_what_is_allowed():
    within = PlansWithin(searchable(1, range(1, 17)), 100)
    random = np.random.default_rng(0)
    drawn = np.array([within.random_sizes(random)[0] for _ in range(2000)])
    assert drawn.min() >= 1
    assert drawn.max() <= 16
    # Half of them below the geometric mean of 1 and 16.
    assert (drawn < 4).mean() == pytest.approx(0.5, abs=0.05)
