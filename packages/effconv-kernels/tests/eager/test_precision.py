"""The precision of sums."""

import pytest
import torch
from effconv_kernels.eager.precision import widened


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_sums_have_32_bits_or_more_and_lie_in_a_row(dtype, expected):
    strided = torch.arange(6).to(dtype).view(2, 3).t()
    (found,) = widened(strided)
    assert found.dtype == expected
    assert found.is_contiguous()
    assert found.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_what_is_wide_is_not_copied():
    one, two = torch.ones(2), torch.ones(2, dtype=torch.float64)
    assert [a is b for a, b in zip(widened(one, two), (one, two))] == [True, True]
