import pytest
import torch
from effconv_core.cost.base import TapCost
from effconv_core.cost.budget import Budget, Constraint
from effconv_core.space.search_space import Layer, SizeSpace

COST = TapCost((6, 20), constant=100)


def square(layers, largest=7):
    return SizeSpace([Layer(str(i), (1, 1), range(1, largest + 1)) for i in range(layers)])


def test_cost_by_hand():
    # 100 + 6 * 3^2 + 20 * 2^2 = 234
    assert COST([3, 2]) == 234
    assert COST.soft(torch.tensor([3.0, 2.0])).item() == 234


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
