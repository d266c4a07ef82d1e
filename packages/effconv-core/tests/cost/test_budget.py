import itertools
import math

import pytest
import torch
from effconv_core.cost.base import TapCost
from effconv_core.cost.budget import Budget, Constraint
from effconv_core.cost.losses import paper_budget_loss, smooth_budget_loss
from effconv_core.space.search_space import Layer, SizeSpace

COST = TapCost((6, 20), constant=100)


def square(layers, largest=7):
    return SizeSpace([Layer(str(i), (1, 1), range(1, largest + 1)) for i in range(layers)])


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
        Constraint(COST, Budget(budget), 0.02).check(square(2))


def test_cost_of_lines_squares_cubes_and_rectangles_by_hand():
    # 10 + 2 * 3 + 5 * 4^2 + 7 * 2^3 + 11 * 3 * 5
    cost = TapCost((2, 5, 7, 11), 10, ((0,), (1, 1), (2, 2, 2), (3, 4)))
    assert cost([3, 4, 2, (3, 5)]) == cost([3, 4, 2, 3, 5]) == 317
    sizes = torch.tensor([3.0, 4.0, 2.0, 3.0, 5.0], dtype=torch.float64, requires_grad=True)
    cost.soft(sizes).backward()
    assert cost.soft(sizes).item() == 317
    assert sizes.grad.tolist() == [2, 5 * 8, 7 * 3 * 4, 11 * 5, 11 * 3]
    with pytest.raises(ValueError, match="there are 2 sizes; pass 5"):
        cost([3, 4])


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


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (("9",), TypeError, "budget is '9'; pass the wanted parameter count as a number"),
        ((True,), TypeError, "budget is True"),
        (
            (9, None, False, 0.0),
            ValueError,
            "weight of a budget is 0.0; pass a finite number above",
        ),
        ((0,), ValueError, "budget is 0; pass a finite number above 0"),
        ((-5.0,), ValueError, "budget is -5.0; pass a finite number above 0"),
        ((float("nan"),), ValueError, "budget is nan; pass"),
        ((float("inf"), None, True), ValueError, "budget is inf; pass"),
        ((9, None, False, "1"), TypeError, "weight of a budget is '1'; pass a number"),
    ],
)
def test_a_malformed_budget_is_refused(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        Budget(*arguments)
