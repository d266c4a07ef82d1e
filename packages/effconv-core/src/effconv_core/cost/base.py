"""What sizes cost, and what a count may ask of the network that is searched."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from effconv_core.layers.conv import PredictedConv
from effconv_core.space.search_space import SizeSpace, flat


class Cost(Protocol):
    """The cost of S sizes: an integer for each layer, and a constant for the rest."""

    counts: str
    """The unit of the cost, as a plural noun, such as `"parameters"`."""
    constant: int

    def part(self, layer: int, sizes: Sequence[int] | Mapping[int, int]) -> int:
        """Return the cost of the layer at index `layer`; only its entries of `sizes` are read."""

    def __call__(self, sizes: Sequence[int | Sequence[int]]) -> int:
        """Return the total cost: the constant plus all layers."""

    def soft(self, sizes: Tensor) -> Tensor:
        """Return the cost at real-valued sizes `(S,)`, a scalar differentiable in them."""


@dataclass(frozen=True)
class TapCost:
    """A cost that is proportional to each layer's taps: parameters, multiply-accumulates.

    Args:
        per_tap: cost of one kernel position of each searched layer, in the unit `counts`: for
            parameters c_l * c_{l-1} (EffConv Eq. 3), for multiply-accumulates that times the
            number of output positions.
        constant: cost of everything else; 0 for Eq. 3 itself.
        factors: for each layer the indices of the sizes whose product is its number of taps;
            None if each layer has a square kernel with one size.
        counts: the unit of the cost, as a plural noun.
    """

    per_tap: tuple[int, ...]
    constant: int = 0
    factors: tuple[tuple[int, ...], ...] | None = None
    counts: str = "parameters"

    def part(self, layer: int, sizes: Sequence[int] | Mapping[int, int]) -> int:
        """Return the cost of the layer at index `layer`; only its entries of `sizes` are read."""
        entries = (layer, layer) if self.factors is None else self.factors[layer]
        return self.per_tap[layer] * prod(sizes[entry] for entry in entries)

    def __call__(self, sizes: Sequence[int | Sequence[int]]) -> int:
        """Return the cost at integer sizes: S of them, or one number or tuple for each layer.

        Raises:
            ValueError: if there are too few or too many.
        """
        sizes, L = flat(sizes), len(self.per_tap)
        expected = L if self.factors is None else 1 + max(map(max, self.factors))
        if len(sizes) != expected:
            raise ValueError(
                f"there are {len(sizes)} sizes; pass {expected}, one for each size that is searched"
            )
        return self.constant + sum(self.part(layer, sizes) for layer in range(L))

    def soft(self, sizes: Tensor) -> Tensor:
        """Return the cost at sizes `(S,)`, as a scalar that is differentiable in them."""
        # Kernel counts of big models exceed 2^24, above which float32 does not hold all integers;
        # only the ratio to the budget is used, so the rounding is harmless.
        device = {"device": sizes.device, "non_blocking": True}
        amount = torch.tensor(self.per_tap, dtype=sizes.dtype, device="cpu").to(**device)
        if self.factors is None:
            return (amount * sizes * sizes).sum() + self.constant
        # Kernels of fewer axes get a size of 1 for the missing ones.
        widest = max(map(len, self.factors))
        padded = [f + (len(sizes),) * (widest - len(f)) for f in self.factors]
        extended = torch.cat([sizes, sizes.new_ones(1)])
        for column in zip(*padded, strict=True):
            amount = amount * extended[torch.tensor(column, device="cpu").to(**device)]
        return amount.sum() + self.constant


class Searchable(Protocol):
    """What a count may ask of a network whose convolutions take given kernels.

    `SearchableCNN` is one; nothing here names it, so that costs need no predictors.
    """

    model: nn.Module
    """The CNN; its searched convolutions are `convs`."""
    layers: list[str]
    """Names of the L searched layers."""
    convs: list[PredictedConv]
    """The L searched layers."""
    space: SizeSpace
    cost: TapCost
    """What sizes cost in parameters."""
    soft_sizes: Tensor | None
    """`(S,)`, those of the last pass."""

    def kernels_at(self, sizes: Sequence[int | Sequence[int]]) -> list[Tensor]:
        """Return L kernels `(c_out, c_in, *taps)` at given sizes."""

    def kernels_of(self, kernels: Sequence[Tensor]) -> AbstractContextManager[None]:
        """Use these kernels in the searched layers within a `with` block."""

    def forward_at(self, sizes: Sequence[int | Sequence[int]], *args: Any, **kwargs: Any) -> Any:
        """Run the CNN at given sizes."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return all parameters."""

    def modules(self) -> Iterator[nn.Module]:
        """Return all modules."""

    def eval(self) -> "Searchable":
        """Go to evaluation mode."""


class Counter(Protocol):
    """A factory of the cost function of a searchable network, such as `Macs`."""

    def __call__(self, searchable: Searchable) -> Cost:
        """Return the cost of the network as a function of its sizes."""
