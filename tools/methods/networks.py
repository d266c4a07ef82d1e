"""The networks that are compared, by method and number of parameters."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from effconv_core import SearchableCNN, apply_plan
from effconv_core.engine.train import TrainConfig
from effconv_models import (
    CifarResNet,
    FlexNet,
    MultiResolutionNet,
    flexnet3,
    flexnet16,
    multiply_accumulates,
    to_plain,
)
from torch import nn


@dataclass(frozen=True)
class Size:
    """Networks of about the same number of parameters."""

    parameters: float
    uniform_depth: int
    """Depth of the CIFAR ResNet with 3x3 kernels of that size."""
    searched_depth: int
    """Depth of the ResNet whose sizes are learned for that budget."""
    flexnet: Callable[..., nn.Module]
    flexnet_channels: int
    resolution_layers: int
    resolution_channels: int


SIZES = {
    "small": Size(0.075e6, 8, 8, flexnet3, 10, 10, 32),
    "paper": Size(0.66e6, 44, 20, flexnet16, 24, 20, 64),
}
METHODS = {
    "uniform": "ResNet, 3x3 kernels",
    "effconv": "ResNet, sizes by EffConv",
    "flexnet": "FlexNet",
    "multi-resolution": "multi-resolution network",
}
TRAIN = {
    "uniform": TrainConfig(6, 64, "adam", 1e-3, 0.0, "cosine", 1.0),
    "effconv": TrainConfig(6, 64, "adam", 1e-3, 0.0, "cosine", 1.0),
    "flexnet": TrainConfig(6, 64, "adam", 1e-2, 0.0, "cosine", 1.0),
    "multi-resolution": TrainConfig(6, 64, "sgd", 0.05, 1e-4, "cosine"),
}
"""As in each method's own papers, except for the number of epochs."""


def make(
    method: str,
    size: Size,
    image_size: int,
    seed: int,
    *,
    in_channels: int = 3,
    num_classes: int = 10,
) -> nn.Module:
    """Build a method's network before its sizes are learned."""
    options = {
        "in_channels": in_channels,
        "num_classes": num_classes,
        "generator": torch.Generator().manual_seed(seed),
    }
    if method == "flexnet":
        return size.flexnet(channels=size.flexnet_channels, image_size=image_size, **options)
    if method == "multi-resolution":
        return MultiResolutionNet(size.resolution_layers, size.resolution_channels, **options)
    depth = size.uniform_depth if method == "uniform" else size.searched_depth
    return CifarResNet(depth, **options)


def at_budget(size: Size, seed: int) -> nn.Module:
    """Build the ResNet of sizes as uniform as the budget allows, for timing."""
    model = make("effconv", size, 32, seed)
    searchable = SearchableCNN(model)
    even = (size.parameters / searchable.cost([1] * len(searchable.layers))) ** 0.5
    sizes = searchable.nearest_sizes([even] * len(searchable.layers), size.parameters)
    plan = dict(zip(searchable.layers, sizes, strict=True))
    return apply_plan(model, plan, generator=torch.Generator().manual_seed(seed))


def macs(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Count multiply-accumulates per image; FlexConv kernels count as already sampled."""
    plain = to_plain(network) if isinstance(network, FlexNet) else network
    return multiply_accumulates(plain, image_shape)


def parameters(network: nn.Module) -> int:
    """Count the parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
