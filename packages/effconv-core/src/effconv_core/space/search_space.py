"""The search space: the layers, their allowed sizes, and the layers that share a size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from effconv_core.space.rounding import nearest_size, size_above


@dataclass(frozen=True)
class Layer:
    """One searched convolution, as described by the shape of its kernel.

    Args:
        name: as in `model.named_modules()`.
        channels: `(c_out, c_in / groups)`, of a transposed layer `(c_in, c_out / groups)`; their
            product is the number of parameters per tap.
        allowed: the allowed sizes.
        axes: for each axis of the kernel the index of the layer's size that sets its length, or
            None if it always has one tap. A square kernel has `(0, 0)`.
        groups: groups of the convolution.
        own: the sizes that the layer has in the network, `size_count` of them, where learning
            starts.
    """

    name: str
    channels: tuple[int, int]
    allowed: range = range(1, 8)
    axes: tuple[int | None, ...] = (0, 0)
    groups: int = 1
    own: tuple[int, ...] = (3, 3, 3)

    @property
    def size_count(self) -> int:
        """Number of sizes of the layer: 1, or one for each axis."""
        return 1 + max(axis for axis in self.axes if axis is not None)

    @property
    def ruled(self) -> int:
        """Number of axes whose size is learned."""
        return sum(axis is not None for axis in self.axes)

    def shape(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the kernel's taps along each axis at the layer's sizes."""
        return tuple(1 if axis is None else sizes[axis] for axis in self.axes)


@dataclass(frozen=True)
class TiedSizes:
    """Sizes that must be chosen together: those of one layer, or of layers that share them.

    Args:
        layers: indices of the layers.
        entries: for each size, its indices in the list of all sizes.
        allowed: the allowed values of each of these sizes.
    """

    layers: tuple[int, ...]
    entries: tuple[tuple[int, ...], ...]
    allowed: range


class SizeSpace:
    """All sizes of a search: one for each layer, or one for each axis of each layer.

    Lists and tensors of sizes have S entries, layer after layer; without sizes per axis S is L.
    Entries that share a size are one variable, so that there are V <= S variables.

    Args:
        layers: L layers.
        ties: groups of indices of layers that share their sizes; these must have the same number of
            sizes and the same range.
    """

    def __init__(self, layers: Sequence[Layer], ties: Iterable[Sequence[int]] = ()) -> None:
        self.layers = list(layers)
        leader = list(range(len(self.layers)))
        for group in ties:
            for place in group:
                leader[place] = min(group)
        self.firsts = [0]
        for layer in self.layers:
            self.firsts.append(self.firsts[-1] + layer.size_count)
        self.ranges = [layer.allowed for layer in self.layers for _ in range(layer.size_count)]
        self.units: list[TiedSizes] = []
        self.variables = [0] * len(self.ranges)
        self.variable_ranges: list[range] = []
        self.variable_starts: list[float] = []
        for place in sorted(set(leader)):
            members = tuple(i for i, other in enumerate(leader) if other == place)
            layer = self.layers[place]
            entries = tuple(
                tuple(self.firsts[member] + axis for member in members)
                for axis in range(layer.size_count)
            )
            self.units.append(TiedSizes(members, entries, layer.allowed))
            for axis, places in enumerate(entries):
                own = [self.layers[member].own[axis] for member in members]
                self.variable_starts.append(sum(own) / len(own))
                for entry in places:
                    self.variables[entry] = len(self.variable_ranges)
                self.variable_ranges.append(layer.allowed)

    @property
    def tied(self) -> bool:
        """Whether any two entries share a size."""
        return len(self.variable_ranges) < len(self.variables)

    def expand(self, values: Tensor) -> Tensor:
        """Expand values `(V,)` of the variables to the `(S,)` entries that share them."""
        return values[self.variables] if self.tied else values

    def factors(self) -> tuple[tuple[int, ...], ...] | None:
        """Return for each layer the indices of the sizes whose product is its number of taps.

        None if all kernels are square with one size.
        """
        if all(layer.axes == (0, 0) for layer in self.layers):
            return None
        return tuple(
            tuple(first + axis for axis in layer.axes if axis is not None)
            for first, layer in zip(self.firsts, self.layers, strict=False)
        )

    def entry_names(self) -> list[str]:
        """Return the layer name of each of the S entries."""
        return [layer.name for layer in self.layers for _ in range(layer.size_count)]

    def entries(self, place: int) -> slice:
        """Return the slice of a layer's sizes in the list of all S."""
        return slice(self.firsts[place], self.firsts[place + 1])

    def rounded(self, soft_sizes: Sequence[float]) -> list[int]:
        """Round S soft sizes to allowed ones (Eq. 2)."""
        return [
            nearest_size(v, allowed) for v, allowed in zip(soft_sizes, self.ranges, strict=True)
        ]

    def above(self, soft_sizes: Sequence[float]) -> list[int]:
        """Return the next allowed sizes above S soft sizes."""
        return [size_above(v, allowed) for v, allowed in zip(soft_sizes, self.ranges, strict=True)]

    def smallest(self) -> list[int]:
        """Return the smallest allowed size of each of the S entries."""
        return [allowed[0] for allowed in self.ranges]

    def largest(self) -> list[int]:
        """Return the largest allowed size of each of the S entries."""
        return [allowed[-1] for allowed in self.ranges]

    def allows(self, sizes: Sequence[int]) -> bool:
        """Return whether these are S sizes, each of them allowed."""
        return len(sizes) == len(self.ranges) and all(
            size in allowed for size, allowed in zip(sizes, self.ranges, strict=True)
        )

    def extents(self, place: int) -> tuple[int, ...]:
        """Return the taps along each axis of a layer's largest kernel."""
        return self.layers[place].shape(self.largest()[self.entries(place)])

    def by_layer(self, sizes: Sequence[int]) -> dict[str, int | tuple[int, ...]]:
        """Return S sizes by layer name: a number, or a tuple if a layer has one for each axis."""
        parts = [tuple(sizes[self.entries(place)]) for place in range(len(self.layers))]
        return {
            layer.name: part[0] if len(part) == 1 else part
            for layer, part in zip(self.layers, parts, strict=True)
        }


def flat(sizes: Iterable[int | Sequence[int]]) -> list[int]:
    """Flatten the sizes of layers, such as a plan's values, into one list."""
    return [n for size in sizes for n in (size if isinstance(size, list | tuple) else (size,))]


def in_words(allowed: range) -> str:
    """Format allowed sizes: from 1 to 7 by 2."""
    return f"from {allowed[0]} to {allowed[-1]}" + f" by {allowed.step}" * (allowed.step > 1)
