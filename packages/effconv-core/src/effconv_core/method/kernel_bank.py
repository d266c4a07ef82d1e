"""A bank of kernels: one of the largest size a layer, learned directly (not in the paper)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.method.kernel_source import gaussian_mask, he_deviation
from effconv_core.method.mask import ring_mask
from effconv_core.method.static_shapes import Padding, along_axes, mask_rows, rings
from effconv_core.rng import Draws
from effconv_core.space.search_space import Layer, SizeSpace


class KernelBank(nn.Module):
    """One kernel of the largest size per layer, learned and cropped to s (not in the paper).

    A tap keeps its spatial position when the size changes, unlike in the row-major order of
    Eq. 5. Values start with He's fan-out standard deviation at size 3.

    Args:
        space: the layers; c_in is that of one group.
        config: mask and the seed of its draws.
        generator: source of the initial values.
    """

    def __init__(self, space: SizeSpace, config: SearchConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.space, self.centre = space, config.centre
        self.draws = Draws(config.seed, 1) if config.mask == "ring" else None
        self.kernels = nn.ParameterList(
            torch.randn(*layer.channels, *space.extents(place), generator=generator)
            * he_deviation(layer)
            for place, layer in enumerate(space.layers)
        )

    def forward(self, soft_sizes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return L masked kernels `(c_out, c_in, *taps)` for soft sizes `(S,)` and sizes."""
        masked = []
        # In evaluation each ring that can be on is on. Layers that share a size share a draw.
        count = len(self.space.variable_ranges)
        drawn = soft_sizes.new_zeros(count)
        if self.draws and self.training:
            drawn = self.draws(count)
        # Kept in float32: in bfloat16 a number near 1 would be rounded to 1.
        drawn = self.space.expand(drawn).to(soft_sizes.device)
        for place, (layer, kernel) in enumerate(zip(self.space.layers, self.kernels, strict=True)):
            entry = self.space.entries(place)
            windows = (
                window_of(n, largest)
                for n, largest in zip(layer.shape(sizes[entry]), kernel.shape[2:], strict=True)
            )
            cropped = kernel[(slice(None), slice(None), *windows)]
            if self.draws:
                mask = _rings(layer, soft_sizes[entry], sizes[entry], drawn[entry])
            else:
                mask = gaussian_mask(layer, soft_sizes[entry], sizes[entry], self.centre)
            masked.append(cropped * mask)
        return masked

    def padded(
        self, soft_sizes: Tensor, sizes: Tensor, padding: Padding, drawn: Tensor | None = None
    ) -> list[Tensor]:
        """Return the kernels zero-padded to the largest size, see `KernelSource`."""
        windows, inner, masked = padding.windows(sizes), padding.inner(sizes), []
        if drawn is None:
            profiles = mask_rows(soft_sizes, windows, self.centre)
        else:
            probability = (soft_sizes - inner.sizes) / padding.step
            gates = (drawn < probability).to(soft_sizes) + probability - probability.detach()
        for place, (layer, kernel) in enumerate(zip(self.space.layers, self.kernels, strict=True)):
            entry, extents = self.space.entries(place), self.space.extents(place)
            if drawn is None:
                mask = along_axes(layer.axes, profiles[entry], extents)
            else:
                mask = rings(layer, gates[entry], inner.of(entry), windows.of(entry), extents)
            masked.append(kernel * mask)
        return masked


def window_of(size: int, largest: int) -> slice:
    """Return the slice of a window in the largest one, positioned as by "same" padding."""
    first = (largest - 1) // 2 - (size - 1) // 2
    return slice(first, first + size)


def _rings(layer: Layer, soft_sizes: Tensor, sizes: Sequence[int], drawn: Tensor) -> Tensor:
    """Return the product of the ring masks of a layer's sizes, one per kernel or per axis."""
    masks = [
        ring_mask(
            soft_sizes[number],
            size,
            drawn[number],
            axes=[axis == number for axis in layer.axes],
            step=layer.allowed.step,
        )
        for number, size in enumerate(sizes)
    ]
    return math.prod(masks[1:], start=masks[0])
