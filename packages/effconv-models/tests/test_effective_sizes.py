"""Sizes of kernels in pixels of the image."""

import pytest
import torch
from effconv_models import (
    FlexConv,
    MultiResolutionNet,
    block_kernel_sizes,
    effective_sizes,
    pooled_cnn,
)
from torch import nn


def test_effective_sizes_by_hand():
    network = MultiResolutionNet(4, 4, resolutions=3, kernel_sizes=[3, 5, 3])
    network.layers[1].mixing.data = torch.tensor([0.5, 0.2, 0.3]).log()
    sizes = effective_sizes(network)
    # 3 (1 + 2 + 4) / 3, 5 (0.5 + 0.4 + 1.2), and again the first.
    assert list(sizes.values()) == pytest.approx([7, 10.5, 7])
    assert list(sizes) == list(block_kernel_sizes(network))
    plain = pooled_cnn([1, 0, 3, 3], 4)
    assert list(effective_sizes(plain).values()) == [6, 3, 24, 24]


def test_flexconvs_have_one_number_where_all_axes_are_equal():
    model = nn.Sequential(FlexConv(1, 2, 33), nn.ReLU(), FlexConv(2, 2, (33, 9)))
    assert effective_sizes(model) == {"0": 5, "2": (5, 1)}


@pytest.mark.parametrize("model", [nn.Linear(1, 1), nn.Sequential(nn.Conv2d(1, 1, 3))])
def test_other_networks_are_refused_by_name(model):
    with pytest.raises(ValueError, match=type(model).__name__):
        effective_sizes(model)
