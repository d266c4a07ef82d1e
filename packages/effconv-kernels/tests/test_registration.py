"""Operators of our own in PyTorch's dispatcher."""

import uuid

import pytest
import torch
from effconv_kernels.registration import (
    on_device_of,
    refuse_derivatives,
    register,
    without_autocast,
)


@pytest.fixture
def doubled():
    """Register an operator that doubles, by a name that nothing else has."""
    return register(
        f"test_{uuid.uuid4().hex}(Tensor values) -> Tensor",
        lambda values: values * 2,
        torch.empty_like,
    )


def test_an_operator_computes_and_knows_its_shapes(doubled):
    assert doubled(torch.tensor([1.0, 2.0])).tolist() == [2, 4]
    found = doubled(torch.empty(3, 5, device="meta"))
    assert (found.shape, found.is_meta) == ((3, 5), True)
    torch.library.opcheck(doubled, (torch.ones(2),), test_utils=("test_schema", "test_faketensor"))


def test_a_derivative_that_nobody_wrote_is_refused_by_name(doubled):
    refuse_derivatives(doubled)
    values = torch.ones(2, requires_grad=True)
    with pytest.raises(NotImplementedError, match=doubled.name()):
        doubled(values).sum().backward()


def test_sums_keep_their_precision_under_autocast():
    tensor = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (tensor @ tensor).dtype == torch.bfloat16
        with without_autocast(tensor):
            assert (tensor @ tensor).dtype == torch.float32
        with without_autocast(tensor.to("meta")):
            pass
        assert (tensor @ tensor).dtype == torch.bfloat16


def test_the_cpu_is_no_device_to_change_to():
    with on_device_of(torch.ones(1)) as entered:
        assert entered is None
