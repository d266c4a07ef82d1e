"""The budget's term of the loss, by hand and case by case."""

import itertools
import math

import pytest
import torch
from effconv_core.cost.base import TapCost
from effconv_core.cost.losses import paper_budget_loss, smooth_budget_loss

COST = TapCost((6, 20), constant=100)


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


@pytest.mark.parametrize("amount", [234.0, 300.0])
@pytest.mark.parametrize("form", [paper_budget_loss, smooth_budget_loss])
def test_at_most_costs_nothing_up_to_the_amount(form, amount):
    soft_sizes = torch.tensor([3.0, 2.0], dtype=torch.float64, requires_grad=True)  # cost 234
    loss = form(COST, soft_sizes, amount, at_most=True)
    loss.backward()
    assert loss.item() == 0
    assert soft_sizes.grad.tolist() == [0, 0]
    assert form(COST, soft_sizes, 200.0, at_most=True) == form(COST, soft_sizes, 200.0)


def test_papers_loss_rounds_to_the_sizes_that_there_are():
    soft_sizes = torch.tensor([3.9, 2.2], dtype=torch.float64, requires_grad=True)
    odd = torch.tensor([3.0, 3.0], dtype=torch.float64)
    loss = paper_budget_loss(COST, soft_sizes, 200.0, sizes=odd)  # 100 + 6 * 9 + 20 * 9 = 334
    loss.backward()
    assert loss.item() == pytest.approx(math.log(334 / 200))
    assert soft_sizes.grad.tolist() == pytest.approx([2 * 6 * 3 / 334, 2 * 20 * 3 / 334])
