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
    """What S sizes cost: a whole number for each layer, and a constant for the rest."""

    counts: str
    """What is counted, as a plural noun, such as `"parameters"`."""
    constant: int

    def part(self, layer: int, sizes: Sequence[int] | Mapping[int, int]) -> int:
        """Give what the layer at this place costs; of the S sizes only its own are looked at."""

    def __call__(self, sizes: Sequence[int | Sequence[int]]) -> int:
        """Give the constant and all parts."""

    def soft(self, sizes: Tensor) -> Tensor:
        """Give the cost at sizes `(S,)` that need not be whole, differentiable in them."""


@dataclass(frozen=True)
class TapCost:
    """A cost that is proportional to every layer's taps: parameters, multiply-accumulates.

    Args:
        per_tap: what one kernel position of each searched layer costs: c_l * c_{l-1} parameters
            (EffConv Eq. 3), and as many multiplications at each position of the output.
        constant: what everything else costs; 0 for Eq. 3 alone.
        factors: for each layer the places of the sizes whose product is its number of taps; a
            square kernel with a size a layer, place twice, when None.
        counts: what is counted.
    """

    per_tap: tuple[int, ...]
    constant: int = 0
    factors: tuple[tuple[int, ...], ...] | None = None
    counts: str = "parameters"

    def part(self, layer: int, sizes: Sequence[int] | Mapping[int, int]) -> int:
        """Give what the layer at this place costs; of the S sizes only its own are looked at."""
        entries = (layer, layer) if self.factors is None else self.factors[layer]
        return self.per_tap[layer] * prod(sizes[entry] for entry in entries)

    def __call__(self, sizes: Sequence[int | Sequence[int]]) -> int:
        """Count at integer sizes: S of them, or one number or tuple for each layer.

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
        """Count at sizes `(S,)`, as a scalar that is differentiable in them."""
        # Kernel counts of big models pass 2^24, where float32 stops counting; a ratio to the
        # budget is all that is made of this, so its rounding is harmless.
        device = {"device": sizes.device, "non_blocking": True}
        amount = torch.tensor(self.per_tap, dtype=sizes.dtype).to(**device)
        if self.factors is None:
            return (amount * sizes * sizes).sum() + self.constant
        # Kernels of fewer axes take a size of 1 for the others.
        widest = max(map(len, self.factors))
        padded = [f + (len(sizes),) * (widest - len(f)) for f in self.factors]
        extended = torch.cat([sizes, sizes.new_ones(1)])
        for column in zip(*padded, strict=True):
            amount = amount * extended[torch.tensor(column).to(**device)]
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
        """Let the searched layers use these kernels for a while."""

    def forward_at(self, sizes: Sequence[int | Sequence[int]], *args: Any, **kwargs: Any) -> Any:
        """Run the CNN at given sizes."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return all parameters."""

    def modules(self) -> Iterator[nn.Module]:
        """Return all modules."""

    def eval(self) -> "Searchable":
        """Go to evaluation mode."""


class Counter(Protocol):
    """Whatever tells what the sizes of a searchable network cost, such as `Macs`."""

    def __call__(self, searchable: Searchable) -> Cost:
        """Return the cost of the network as a function of its sizes."""
