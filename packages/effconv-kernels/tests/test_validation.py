"""The checks of arguments that both operators share."""

import numpy as np
import pytest
import torch
from effconv_kernels.validation import check_dtype, check_shape, check_tensors, counts_of, uncast


@pytest.mark.parametrize(
    "counts",
    [[3, 5], (3, 5), iter([3, 5]), torch.tensor([3, 5]), np.array([3, 5]), [np.int64(3), 5]],
)
def test_counts_are_integers_of_any_kind(counts):
    found = counts_of("op", "steps", counts, 2)
    assert found == [3, 5]
    assert [type(count) for count in found] == [int, int]


@pytest.mark.parametrize(
    ("counts", "kind", "named"),
    [
        ([3], ValueError, "1 .* 2"),
        ([3, 0], ValueError, r"steps\[1\] is 0"),
        ([3, 11], ValueError, r"steps\[1\] is 11"),
        ([3, True], TypeError, r"steps\[1\]"),
        ([3, 5.0], TypeError, r"steps\[1\]"),
        ([3, "5"], TypeError, r"steps\[1\]"),
        (3, ValueError, "steps is 3"),
        (None, TypeError, "NoneType"),
        (torch.tensor([3.0, 5.0]), ValueError, "float32"),
        (torch.tensor([[3, 5]]), ValueError, r"\(1, 2\)"),
        (torch.tensor([True, True]), ValueError, "bool"),
    ],
)
def test_other_counts_are_refused_with_their_place(counts, kind, named):
    with pytest.raises(kind, match=f"op: .*{named}"):
        counts_of("op", "steps", counts, 2, limit=10)


def test_tensors_that_agree_pass():
    check_tensors("op", {"a": (torch.ones(2, 3), "(L, 3H)"), "b": (torch.ones(2), "(L,)")})


@pytest.mark.parametrize(
    ("other", "kind", "named"),
    [
        ([1.0], TypeError, "b is a list"),
        (torch.ones(2, 3), ValueError, r"b has shape \(2, 3\)"),
        (torch.ones(2, dtype=torch.int64), ValueError, "b .*int64"),
        (torch.ones(2, dtype=torch.float64), ValueError, "b is torch.float64"),
        (torch.ones(2, device="meta"), ValueError, "b is .* meta"),
    ],
)
def test_a_tensor_that_does_not_agree_is_named(other, kind, named):
    with pytest.raises(kind, match=f"op: {named}"):
        check_tensors("op", {"a": (torch.ones(2, 3), "(L, 3H)"), "b": (other, "(L,)")})


def test_a_tangent_would_be_lost_and_is_refused():
    def run(values):
        check_tensors("op", {"a": (values, "(L,)")})
        return values

    assert torch.func.grad(lambda values: run(values).sum())(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(NotImplementedError, match="op"):
        torch.func.jvp(run, (torch.ones(2),), (torch.ones(2),))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int32])
def test_dtypes_without_enough_bits_are_refused(dtype):
    with pytest.raises(ValueError, match="op: out is torch"):
        check_dtype("op", "out is", dtype)
    check_dtype("op", "out is", torch.bfloat16)


def test_a_shape_is_that_of_the_other_arguments():
    check_shape("op", "a", torch.ones(2, 3), "(L, H)", (2, 3))
    with pytest.raises(ValueError, match=r"a has shape \(2, 3\).*\(2, 4\)"):
        check_shape("op", "a", torch.ones(2, 3), "(L, H)", (2, 4))


def test_under_autocast_short_tensors_become_float32():
    short, double = torch.ones(1, dtype=torch.bfloat16), torch.ones(1, dtype=torch.float64)
    assert uncast(short, double) == (short, double)
    with torch.autocast("cpu", torch.bfloat16):
        first, second, third = uncast(short, double, None)
    assert (first.dtype, second.dtype, third) == (torch.float32, torch.float64, None)
