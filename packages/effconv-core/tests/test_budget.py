import itertools
import math

import pytest
import torch
from effconv_core.budget import (
    Bound,
    Budget,
    TapCost,
    paper_budget_loss,
    smooth_budget_loss,
)
from effconv_core.knapsack import nearest_plan
from effconv_core.space import Layer, SizeSpace
from hypothesis import given, settings
from hypothesis import strategies as st

COST = TapCost((6, 20), constant=100)


def square(layers, largest=7):
    return SizeSpace([Layer(str(i), (1, 1), range(1, largest + 1)) for i in range(layers)])


def nearest(cost, soft, budget, *, tolerance=0.02, largest=7):
    bounds = [Bound(cost, Budget(budget), tolerance)]
    return nearest_plan(bounds, soft, square(len(cost.per_tap), largest))


def test_cost_by_hand():
    # 100 + 6 * 3^2 + 20 * 2^2 = 234
    assert COST([3, 2]) == 234
    assert COST.soft(torch.tensor([3.0, 2.0])).item() == 234


def test_papers_loss_by_hand_above_and_below_the_budget():
    soft_sizes = torch.tensor([3.2, 1.8], dtype=torch.float64)  # rounds to 3, 2: cost 234
    assert paper_budget_loss(COST, soft_sizes, 200.0).item() == pytest.approx(math.log(1.17))
    assert paper_budget_loss(COST, soft_sizes, 300.0).item() == pytest.approx(math.log(300 / 234))


@pytest.mark.parametrize(("budget", "sign"), [(200.0, 1), (300.0, -1)])
def test_papers_gradient_is_the_straight_through_formula(budget, sign):
    soft_sizes = torch.tensor([3.2, 1.8], dtype=torch.float64, requires_grad=True)
    paper_budget_loss(COST, soft_sizes, budget).backward()
    # d |log(P / p_d)| / d v_l = sign * 2 c_l c_{l-1} s_l / P
    expected = [sign * 2 * 6 * 3 / 234, sign * 2 * 20 * 2 / 234]
    assert soft_sizes.grad.tolist() == pytest.approx(expected)


def test_papers_loss_equals_equation_4_case_by_case():
    for sizes in itertools.product(range(1, 8), repeat=2):
        p, budget = COST(sizes), 500.0
        expected = math.log(p / budget) if p > budget else math.log(budget / p)
        soft_sizes = torch.tensor(sizes, dtype=torch.float64)
        assert paper_budget_loss(COST, soft_sizes, budget).item() == pytest.approx(expected)


def test_smooth_loss_by_hand_and_gradcheck():
    soft_sizes = torch.tensor([2.5, 1.5], dtype=torch.float64, requires_grad=True)
    # 100 + 6 * 6.25 + 20 * 2.25 = 182.5
    expected = math.log(182.5 / 300) ** 2
    assert smooth_budget_loss(COST, soft_sizes, 300.0).item() == pytest.approx(expected)
    torch.autograd.gradcheck(lambda v: smooth_budget_loss(COST, v, 300.0), soft_sizes)


def test_smooth_loss_has_no_dead_zone_where_the_papers_has_one():
    def losses(form):
        return {form(COST, torch.tensor([v, 2.0]), 300.0).item() for v in (2.6, 2.8, 3.0, 3.2, 3.4)}

    assert len(losses(paper_budget_loss)) == 1
    assert len(losses(smooth_budget_loss)) == 5


@pytest.mark.parametrize("budget", [10.0, 125.9, 1375.0])
def test_an_infeasible_budget_names_the_feasible_range(budget):
    # 100 + 26 = 126 at size 1 everywhere, 100 + 26 * 49 = 1374 at size 7.
    with pytest.raises(ValueError, match=r"126 \(all sizes 1\) to 1,374 \(all sizes 7\)"):
        Bound(COST, Budget(budget), 0.02).check(square(2))


@settings(deadline=None, max_examples=200)
@given(
    per_tap=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    constant=st.integers(0, 50),
    data=st.data(),
    tolerance=st.sampled_from([0.02, 0.1]),
)
def test_nearest_plan_equals_trying_every_plan(per_tap, constant, data, tolerance):
    cost, largest = TapCost(tuple(per_tap), constant), 5
    soft = [data.draw(st.floats(1, largest)) for _ in per_tap]
    ends = cost([1] * len(per_tap)), cost([largest] * len(per_tap))
    budget = data.draw(st.floats(*map(float, ends)))
    plans = itertools.product(range(1, largest + 1), repeat=len(per_tap))
    inside = [p for p in plans if abs(cost(p) - budget) <= tolerance * budget]
    distance = {p: sum(abs(s - v) for s, v in zip(p, soft)) for p in inside}
    keywords = {"tolerance": tolerance, "largest": largest}
    if not inside:
        with pytest.raises(ValueError, match="no plan costs within"):
            nearest(cost, soft, budget, **keywords)
        return
    found = tuple(nearest(cost, soft, budget, **keywords))
    assert found in distance
    assert distance[found] == pytest.approx(min(distance.values()))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(1, 7), min_size=18, max_size=18), st.floats(0.05, 1.2))
def test_nearest_plan_of_a_resnet20_is_always_within_two_percent(soft, millions):
    per_tap = (256,) * 6 + (512,) + (1024,) * 5 + (2048,) + (4096,) * 5
    cost, budget = TapCost(per_tap, 2458), millions * 1e6
    plan = nearest(cost, soft, budget)
    assert abs(cost(plan) - budget) <= 0.02 * budget
    assert all(1 <= size <= 7 for size in plan)


def test_only_the_layer_nearest_to_the_other_integer_changes():
    cost = TapCost((10, 10, 10))
    soft = [3.1, 3.45, 3.2]  # rounds to 270; a budget of 340 wants one layer at 4
    assert nearest(cost, soft, 340.0) == [3, 4, 3]


def test_a_rounded_plan_within_the_budget_is_kept():
    cost = TapCost((10, 10, 10))
    assert nearest(cost, [3.4, 2.6, 3.0], 270.0) == [3, 3, 3]
