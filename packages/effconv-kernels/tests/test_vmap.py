"""A batch of calls becomes one: its dimension is merged with that of the layers."""

import pytest
import torch
from effconv_kernels.vmap import check_batch, folded


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_the_batch_stands_before_the_layers(dim):
    calls = torch.arange(24).view(2, 3, 4)  # (B, L, H)
    (found,) = folded([calls.movedim(0, dim)], [dim], 2)
    assert torch.equal(found, calls.reshape(6, 4))


def test_what_all_calls_share_is_repeated_and_nothing_stays_nothing():
    shared = torch.arange(6).view(3, 2)
    found, missing = folded([shared, None], [None, None], 4)
    assert torch.equal(found, shared.repeat(4, 1))
    assert missing is None


@pytest.mark.parametrize("batch", [0, -1])
def test_an_empty_batch_is_refused(batch):
    with pytest.raises(ValueError, match="0"):
        check_batch(0)
    with pytest.raises(ValueError, match="vmap"):
        folded([torch.ones(1)], [None], batch)
    check_batch(1)
