"""Kernels padded to the largest size with masks, so that tensor shapes never depend on the sizes.

Nothing here copies a number to the host, so that a whole step can be one graph.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from effconv_kernels.mask import gaussian, middle_of
from torch import Tensor, nn

from effconv_core.layers.conv import PredictedConv
from effconv_core.layers.geometry import kernel_shape_of, transposed
from effconv_core.method.mask import outer
from effconv_core.space.search_space import Layer, SizeSpace


class Windows(NamedTuple):
    """Positions of the windows of S sizes in the largest kernels, of at most K taps per axis."""

    sizes: Tensor
    """`(S,)`, s, as floating-point numbers."""
    taps: Tensor
    """`(S, K)`: each tap's index in the window; below 0 before it, s or more behind it."""
    inside: Tensor
    """`(S, K)`: 1 in the window, 0 outside of it."""

    def of(self, entries: slice) -> "Windows":
        """Return the windows of a slice of the sizes."""
        return Windows(*(values[entries] for values in self))


class Padding(nn.Module):
    """The sizes of a search as tensors that move to a device with the predictors.

    Args:
        space: the layers and what sizes they may have.
    """

    def __init__(self, space: SizeSpace) -> None:
        super().__init__()
        ranges, self.tied = space.ranges, space.tied
        tables = {
            "smallest": torch.tensor([float(allowed[0]) for allowed in ranges]),
            "largest": torch.tensor([float(allowed[-1]) for allowed in ranges]),
            "step": torch.tensor([float(allowed.step) for allowed in ranges]),
            "places": torch.arange(float(max(space.largest()))),
            "variables": torch.tensor(space.variables),
        }
        for name, values in tables.items():
            self.register_buffer(name, values, persistent=False)

    def expand(self, values: Tensor) -> Tensor:
        """Expand values `(V,)` of the variables to the `(S,)` entries that share them."""
        return values[self.variables] if self.tied else values

    def nearest(self, soft_sizes: Tensor) -> Tensor:
        """Round soft sizes `(S,)` to allowed ones (EffConv Eq. 2), without a gradient."""
        first = self.smallest % self.step
        steps = torch.round((soft_sizes.detach() - first) / self.step)
        return (first + self.step * steps).clamp(self.smallest, self.largest)

    def above(self, soft_sizes: Tensor) -> Tensor:
        """Return the next allowed sizes above soft sizes, both `(S,)`, without a gradient."""
        steps = torch.floor((soft_sizes.detach() - self.smallest) / self.step) + 1
        return torch.minimum(self.smallest + self.step * steps, self.largest)

    def windows(self, sizes: Tensor) -> Windows:
        """Return the windows of sizes `(S,)`, positioned as by "same" padding."""
        first = torch.floor((self.largest - 1) / 2) - torch.floor((sizes - 1) / 2)
        taps = self.places - first.unsqueeze(1)
        inside = (taps >= 0) & (taps < sizes.unsqueeze(1))
        return Windows(sizes, taps, inside.to(sizes))

    def inner(self, sizes: Tensor) -> Windows:
        """Return the windows one step smaller than sizes `(S,)`; they may be empty."""
        return self.windows(sizes - self.step)


def along_axes(axes: Sequence[int | None], rows: Tensor, extents: Sequence[int]) -> Tensor:
    """Return the outer product of a layer's rows, a tensor of shape `extents` over its taps.

    Args:
        axes: for each axis of the kernel the index of its row, or None if it has one tap.
        rows: `(size_count, K)`, one for each of the layer's sizes.
        extents: the kernel's taps along each axis, at most K.
    """
    return outer(
        [
            rows.new_ones(1) if axis is None else rows[axis, :extent]
            for axis, extent in zip(axes, extents, strict=True)
        ]
    )


def mask_rows(soft_sizes: Tensor, windows: Windows, centre: str) -> Tensor:
    """Return each tap's factor in the mask of Eq. 6, `(S, K)`; 0 outside of the windows."""
    v = soft_sizes.unsqueeze(1)
    middle = middle_of(v, windows.sizes.unsqueeze(1), centre)
    return gaussian([windows.taps + 1 - middle], v) * windows.inside


def timesteps(layer: Layer, windows: Windows, extents: tuple[int, ...]) -> Tensor:
    """Return the timestep at which a GRU writes each tap, row-major in the window (EffConv Eq. 5).

    Args:
        layer: one layer.
        windows: of its own sizes, `(size_count, K)`.
        extents: of its largest kernel.

    Returns:
        One integer for each tap of the largest kernel, flattened; 0 outside of the window.
    """
    sizes, inside = windows.sizes.long(), windows.inside.long()
    own = windows.taps.long() * inside
    step = own.new_zeros([1] * len(extents))
    for place, (axis, extent) in enumerate(zip(layer.axes, extents, strict=True)):
        if axis is not None:
            along = [extent if other == place else 1 for other in range(len(extents))]
            step = step * sizes[axis] + own[axis, :extent].view(along)
    return (step * along_axes(layer.axes, inside, extents)).flatten()


def rings(
    layer: Layer, gates: Tensor, inner: Windows, windows: Windows, extents: tuple[int, ...]
) -> Tensor:
    """Return the product of a layer's ring masks (`ring_mask`), 0 outside of the windows.

    Args:
        layer: one layer.
        gates: `(size_count,)`: 1 where the ring is on, 0 where it is off.
        inner: windows inside of the rings, of the layer's own sizes, `(size_count, K)`.
        windows: of the layer's own sizes, `(size_count, K)`.
        extents: of its largest kernel.
    """
    mask = along_axes(layer.axes, windows.inside, extents)
    for number in range(layer.size_count):
        alone = [number if axis == number else None for axis in layer.axes]
        kept = along_axes(alone, inner.inside, extents)
        mask = mask * (kept + (1 - kept) * gates[number])
    return mask


def check_grid(convs: Sequence[PredictedConv], space: SizeSpace) -> None:
    """Check that the windows of all layers lie on the grid of the largest kernel's taps.

    Raises:
        ValueError: if a dilated layer may have even and odd sizes, or a transposed one where its
            padding cannot keep both in the middle.
    """
    for layer, conv in zip(space.layers, convs, strict=True):
        dilated = any(
            d > 1 for d, axis in zip(conv.dilation, layer.axes, strict=True) if axis is not None
        )
        off = dilated and len({size % 2 for size in layer.allowed}) > 1
        if off or (conv.transposed and len({_begin(conv, size) for size in layer.allowed}) > 1):
            what = f"has dilation {conv.dilation}" if off else "is transposed"
            raise ValueError(
                f"shapes is 'padded' and layer {layer.name!r} {what} with even and odd sizes, "
                "between which its taps would move by a part of a step; allow it only odd sizes, "
                "or pass shapes='exact'"
            )


def _begin(conv: PredictedConv, size: int) -> tuple[int, ...]:
    """Return where a transposed layer puts the first tap of a window, plus a constant."""
    shape = kernel_shape_of(conv, size)
    cropped = transposed(conv, shape)["padding"]
    before = (d * ((taps - 1) // 2) for taps, d in zip(shape, conv.dilation, strict=True))
    return tuple(crop - part for crop, part in zip(cropped, before, strict=True))
