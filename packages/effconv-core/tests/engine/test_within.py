"""Plans within a budget that have given proportions."""

import itertools

import numpy as np
import pytest
import torch
from effconv_core import Budget, Macs, SearchableCNN, recipe
from effconv_core.engine.within import PlansWithin
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

CONFIG = recipe("bank", count="searched", tolerance=0.1)


def searchable(layers=3, allowed=range(1, 8), **options):
    """A network whose searched layers cost the square of their size each."""
    convs = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(layers + 1)]
    return SearchableCNN(nn.Sequential(*convs), CONFIG, allowed=allowed, **options)


def widening(conv=nn.Conv2d, strides=(1, 1, 1, 1), own=3):
    """A network whose three searched layers have 1, 4 and 16 pairs of channels."""
    shapes = zip((1, 1, 1, 4), (1, 1, 4, 4), strides, strict=True)
    convs = [conv(i, o, own, stride, padding=own // 2, bias=False) for i, o, stride in shapes]
    return SearchableCNN(nn.Sequential(*convs), CONFIG, allowed=range(1, 32))


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


@pytest.mark.parametrize("own", [3, 5])
def test_balanced_kernels_in_two_dimensions_cost_the_same(own):
    within = PlansWithin(widening(own=own), 21 * own**2)
    sizes = within.balanced(0.5)
    assert sizes / sizes[2] == pytest.approx([4, 2, 1])  # their squares 16, 4, 1
    assert within.balanced(0.0).tolist() == [own] * 3
    # 3 * 7 own^2 / 3 in each: 12, 6 and 3 at own 3.
    assert within.nearest(sizes)[1:] == tuple(round(own * np.sqrt(7) / n) for n in (2, 4))


def test_balanced_kernels_in_one_dimension_are_half_way_there():
    within = PlansWithin(widening(nn.Conv1d), 63)
    sizes = within.balanced(0.5)  # costs as 1 to 2 to 4, and before 1 to 4 to 16
    assert sizes / sizes[2] == pytest.approx(
        [4, 2, 1]
    )  # costs 4, 8 and 16, and before 3, 12 and 48
    sizes = within.balanced(1.0)
    assert sizes / sizes[2] == pytest.approx([16, 4, 1])


def test_balanced_kernels_are_so_in_the_unit_of_the_budget():
    # A tap of 1 pair of channels at 16x16, 4 at 8x8 and 16 at 4x4 costs the same.
    network = widening(strides=(1, 1, 2, 2))
    macs = Budget(1e9, Macs(torch.zeros(1, 1, 16, 16)), at_most=True)
    sizes = PlansWithin(network, macs).balanced(0.5)
    assert sizes == pytest.approx([3, 3, 3])


def test_a_layer_whose_size_is_fixed_does_not_count():
    network = SearchableCNN(
        nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(3))),
        CONFIG,
        allowed={"1": range(3, 4), "2": range(1, 8)},
        searched=["1", "2"],
    )
    within = PlansWithin(network, Budget(40, at_most=True))
    assert within.nearest(within.balanced(0.5))[0] == 3


@given(st.lists(st.floats(0.1, 30), min_size=3, max_size=3), st.integers(30, 900))
@settings(max_examples=60, deadline=None)
def test_of_a_plan_no_size_can_be_larger_within_the_budget(sizes, amount):
    within = PlansWithin(widening(), Budget(amount, at_most=True))
    plan = within.nearest(np.array(sizes))
    costs = [channels * size**2 for channels, size in zip((1, 4, 16), plan, strict=True)]
    assert sum(costs) <= amount
    for channels, size in zip((1, 4, 16), plan, strict=True):
        assert size == 31 or sum(costs) + channels * (2 * size + 1) > amount


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
