"""Numbers of NumPy and PyTorch as Python's own, and amounts in words."""

import numpy as np
import pytest
import torch
from effconv_core.scalars import in_figures, plain


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.array(7), 7),
        (np.bool_(True), True),
        (torch.tensor(4), 4),
        (torch.tensor(2.5, requires_grad=True), 2.5),
    ],
)
def test_a_scalar_becomes_a_number_of_python(value, expected):
    found = plain(value)
    assert type(found) is type(expected)
    assert found == expected


@pytest.mark.parametrize(
    "value", [3, "3", None, np.array([3]), torch.ones(1, 1), [np.int64(3)], range(3)]
)
def test_anything_else_stays_what_it_is(value):
    assert plain(value) is value


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (270_000, "270,000"),
        (100.4, "100"),
        (99.0, "99"),
        (3, "3"),
        (99.46, "99.46"),
        (0.001234567, "0.001235"),
        (1234.56, "1,235"),
    ],
)
def test_an_amount_has_four_digits_or_is_whole(amount, said):
    assert in_figures(amount) == said
