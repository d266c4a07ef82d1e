"""A lookup-table cost, measured at each allowed size and interpolated between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import scipy
import torch
from torch import Tensor

from effconv_core.space.search_space import SizeSpace, flat


@dataclass(frozen=True, eq=False)
class MeasuredCost:
    """A `Cost` from tables: one integer for each allowed size of each layer.

    Args:
        tables: for each layer an array of integers with one axis for each of its sizes; a layer
            has one size, or one for each axis of the kernel.
        space: the layers and their allowed sizes.
        constant: cost of everything else.
        counts: the unit of the cost, as a plural noun.
    """

    tables: tuple[np.ndarray, ...]
    space: SizeSpace
    constant: int
    counts: str

    def part(self, layer: int, sizes: Sequence[int] | Mapping[int, int]) -> int:
        """Return the cost of the layer at index `layer`; only its entries of `sizes` are read.

        Raises:
            ValueError: if a size is not allowed, so that it was not measured.
        """
        allowed, entries = self.space.layers[layer].allowed, self.space.entries(layer)
        own = [sizes[entry] for entry in range(entries.start, entries.stop)]
        if not all(size in allowed for size in own):
            raise ValueError(
                f"size {own} of layer {self.space.layers[layer].name!r} was not measured; pass "
                f"sizes among {list(allowed)}"
            )
        return int(self.tables[layer][tuple(allowed.index(size) for size in own)])

    def __call__(self, sizes: Sequence[int | Sequence[int]]) -> int:
        """Return the cost at integer sizes: S of them, or one number or tuple for each layer.

        Raises:
            ValueError: if there are too few or too many, or one was not measured.
        """
        sizes, expected = flat(sizes), len(self.space.ranges)
        if len(sizes) != expected:
            raise ValueError(
                f"there are {len(sizes)} sizes; pass {expected}, one for each size that is searched"
            )
        return self.constant + sum(self.part(layer, sizes) for layer in range(len(self.tables)))

    def soft(self, sizes: Tensor) -> Tensor:
        """Return the cost at sizes `(S,)`, as a scalar that is differentiable in them.

        Linear between neighbouring allowed sizes, along each axis of a kernel; at an allowed size
        the slope is that towards the next larger one. Where a larger size was measured to cost
        less, which would make the search stop between the two, both get their average, see
        `isotonic`: there the cost differs slightly from the measured one, and its slope is 0.
        """
        grid = {n: value.to(sizes.device, non_blocking=True) for n, value in self._grid.items()}
        own = torch.cat([sizes, sizes.new_zeros(1)])[grid["entry"]]
        last = grid["count"] - 1
        place = ((own - grid["first"]) / grid["step"]).clamp(max=last).clamp(min=0)
        below = torch.minimum(place.detach().floor().long(), (last - 1).clamp(min=0))
        above = torch.minimum(below + 1, last)
        part_above = place - below
        total = sizes.new_zeros(()) + self.constant
        for corner in product((False, True), repeat=own.shape[1]):
            up = torch.tensor(corner, device="cpu").to(sizes.device, non_blocking=True)
            index = grid["start"] + (torch.where(up, above, below) * grid["stride"]).sum(1)
            weight = torch.where(up, part_above, 1 - part_above).prod(1)
            total = total + (weight * grid["cost"].to(sizes.dtype)[index]).sum()
        return total

    @cached_property
    def _grid(self) -> dict[str, Tensor]:
        """All tables concatenated, with offsets and strides; missing axes have one size."""
        layers, S = self.space.layers, len(self.space.ranges)
        widest = max(layer.size_count for layer in layers)
        columns: dict[str, list] = {n: [] for n in ("entry", "first", "step", "count", "stride")}
        for place, (layer, table) in enumerate(zip(layers, self.tables, strict=True)):
            own, missing = layer.size_count, widest - layer.size_count
            entries = self.space.entries(place)
            columns["entry"].append([*range(entries.start, entries.stop)] + [S] * missing)
            columns["first"].append([layer.allowed[0]] * own + [0] * missing)
            columns["step"].append([layer.allowed.step] * own + [1] * missing)
            columns["count"].append([*table.shape] + [1] * missing)
            strides = [int(np.prod(table.shape[axis + 1 :])) for axis in range(own)]
            columns["stride"].append(strides + [0] * missing)
        grid = {name: torch.tensor(rows, device="cpu") for name, rows in columns.items()}
        lengths = np.cumsum([0] + [table.size for table in self.tables[:-1]])
        grid["start"] = torch.from_numpy(lengths)
        rising = [isotonic(table).ravel() for table in self.tables]
        grid["cost"] = torch.from_numpy(np.concatenate(rising))
        return grid


def isotonic(values: np.ndarray) -> np.ndarray:
    """Return the least-squares fit that does not decrease along any axis.

    With one axis this is isotonic regression. With more, the axes are fitted one after the other;
    each keeps the earlier ones monotone, as isotonic regression preserves order.

    Args:
        values: any number of axes.
    """
    for axis in range(values.ndim):
        values = np.apply_along_axis(
            lambda line: scipy.optimize.isotonic_regression(line).x, axis, values
        )
    return values
