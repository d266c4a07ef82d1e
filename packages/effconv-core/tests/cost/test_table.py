"""Costs from tables: at allowed sizes, between them, and beyond them."""

import numpy as np
import pytest
import torch
from effconv_core.cost.table import MeasuredCost, isotonic
from effconv_core.space.search_space import Layer, SizeSpace

# Layer a: sizes 1, 3, 5; layer b: 2, 3 along each of two axes; layer c: 4 alone.
SPACE = SizeSpace(
    [
        Layer("a", (1, 1), range(1, 6, 2)),
        Layer("b", (1, 1), range(2, 4), axes=(0, 1)),
        Layer("c", (1, 1), range(4, 5)),
    ]
)

COST = MeasuredCost(
    (np.array([10, 30, 90]), np.array([[100, 200], [400, 900]]), np.array([7])),
    SPACE,
    1000,
    "nanoseconds",
)


def test_by_hand():
    assert COST([3, 2, 3, 4]) == 1000 + 30 + 200 + 7
    assert COST([5, (3, 2), 4]) == 1000 + 90 + 400 + 7
    soft = torch.tensor([4.0, 2.25, 2.5, 4.0], dtype=torch.float64, requires_grad=True)
    value = COST.soft(soft)
    # a: half way from 30 to 90. b: 3/4 of the mean of 100, 200 and 1/4 of that of 400, 900.
    assert value.item() == pytest.approx(1000 + 60 + 0.75 * 150 + 0.25 * 650 + 7)
    value.backward()
    # a: 60 in two sizes. b: 650 - 150 along one axis; 3/4 of 100 and 1/4 of 500 along the other.
    assert soft.grad.tolist() == pytest.approx([30, 500, 0.75 * 100 + 0.25 * 500, 0])


@pytest.mark.parametrize("sizes", [[1.7, 2.3, 2.9, 4.0], [3.4, 2.8, 2.1, 4.0]])
def test_gradient(sizes):
    soft = torch.tensor(sizes, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: COST.soft(v)[None], soft)


def test_ends_keep_their_slope_and_nothing_is_extrapolated():
    soft = torch.tensor([1.0, 3.0, 3.0, 4.0], requires_grad=True)
    COST.soft(soft).backward()
    assert soft.grad.tolist() == pytest.approx([10, 700, 500, 0])
    outside = torch.tensor([0.0, 9.0, 9.0, 9.0])
    assert COST.soft(outside).item() == 1000 + 10 + 900 + 7


def test_sizes_that_were_not_measured():
    with pytest.raises(ValueError, match=r"\[2\] .*'a'"):
        COST([2, 2, 2, 4])
    with pytest.raises(ValueError, match="3 .* 4"):
        COST([3, 2, 2])


def test_isotonic_by_hand():
    assert isotonic(np.array([1, 3, 2, 4])).tolist() == [1, 2.5, 2.5, 4]
    assert isotonic(np.array([3, 2, 1])).tolist() == [2, 2, 2]
    grid = isotonic(np.array([[4, 1], [2, 5]]))
    # Down the columns first, 3 3 and 1 5, then along the rows.
    assert grid.tolist() == [[2, 2], [3, 5]]


def test_isotonic_against_scipy_and_along_both_axes():
    optimize = pytest.importorskip("scipy.optimize")
    generator = np.random.default_rng(0)
    for n in (1, 2, 7, 31):
        values = generator.normal(size=n) + np.arange(n) / 3
        np.testing.assert_allclose(isotonic(values), optimize.isotonic_regression(values).x)
    grid = isotonic(generator.normal(size=(7, 5)))
    assert (np.diff(grid, axis=0) >= -1e-12).all()
    assert (np.diff(grid, axis=1) >= -1e-12).all()
