"""The check of a search that what it finds is the network that it trains."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.cost.base import Cost
from effconv_core.layers.contract import Batch, check_same_network
from effconv_core.layers.conv import PredictedConv
from effconv_core.layers.copying import copy_network
from effconv_core.layers.own_state import check_own_state
from effconv_core.method.kernel_bank import window_of
from effconv_core.space.search_space import SizeSpace


class Searched(Protocol):
    """What is checked; `SearchableCNN` is one."""

    config: SearchConfig
    space: SizeSpace
    model: nn.Module
    cost: Cost
    layers: list[str]
    source: tuple[nn.Module]
    convs: list[PredictedConv]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return what a search trains."""

    def kernels_at(self, sizes: Any) -> list[Tensor]:
        """Return the kernels learned so far at given sizes."""

    def warm_start(self, plan: Any) -> nn.Module:
        """Return the CNN of a plan with these kernels."""


def check_found(searchable: Searched, batch: Batch, plans: list[list[int]] | None = None) -> None:
    """Raise unless the CNNs of plans are the network that is searched, and can be written.

    Args:
        searchable: the network; neither it nor a state of random numbers is changed.
        batch: what it is run on.
        plans: S sizes each; None takes two, in which every layer has its largest size once and a
            small one once.

    Raises:
        ValueError: if a CNN is another network, or another size than its plan says, or does not
            load its own state; the message names the layer.
    """
    for sizes in _two_plans(searchable.space) if plans is None else plans:
        with torch.no_grad():
            kernels = [
                kernel.to(conv.like)
                for kernel, conv in zip(searchable.kernels_at(sizes), searchable.convs, strict=True)
            ]
        found = searchable.warm_start(searchable.space.by_layer(sizes))
        count = sum(parameter.numel() for parameter in found.parameters())
        if searchable.config.count == "model" and count != searchable.cost(sizes):
            raise ValueError(
                f"the CNN of a plan has {count:,} parameters, and the plan says "
                f"{searchable.cost(sizes):,}; let no layer that is searched share its tensors"
            )
        check_own_state(found)
        padded = None
        if searchable.config.shapes == "padded":
            padded = dict(zip(searchable.layers, _padded(searchable.space, kernels), strict=True))
        named = dict(zip(searchable.layers, kernels, strict=True))
        reference, (original,) = copy_network(searchable.model), searchable.source
        trained = searchable.parameters()
        check_same_network(
            reference, found, named, batch, padded=padded, original=original, trained=trained
        )


def _two_plans(space: SizeSpace) -> Iterator[list[int]]:
    for turn in (0, 1):
        values = [
            allowed[-1] if number % 2 == turn else allowed[min(1, len(allowed) - 1)]
            for number, allowed in enumerate(space.variable_ranges)
        ]
        yield [values[variable] for variable in space.variables]


def _padded(space: SizeSpace, kernels: list[Tensor]) -> Iterator[Tensor]:
    """Yield kernels among zeros, of each layer's largest size."""
    for place, kernel in enumerate(kernels):
        extents = space.extents(place)
        padded = kernel.new_zeros(*kernel.shape[:2], *extents)
        windows = (window_of(n, most) for n, most in zip(kernel.shape[2:], extents, strict=True))
        padded[(slice(None), slice(None), *windows)] = kernel
        yield padded
