"""What gives the kernels of a search, and what all such sources share."""

import math
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from effconv_core.method.mask import modulation_mask
from effconv_core.method.static_shapes import Padding
from effconv_core.space.search_space import Layer


class KernelSource(Protocol):
    """A trainable module that returns masked kernels for given sizes."""

    def __call__(self, soft_sizes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return L masked kernels `(c_out, c_in, *taps)`, differentiable in soft sizes `(S,)`."""

    def padded(
        self, soft_sizes: Tensor, sizes: Tensor, padding: Padding, drawn: Tensor | None
    ) -> list[Tensor]:
        """Return the same kernels, zero-padded to the largest sizes.

        Args:
            soft_sizes: `(S,)`.
            sizes: `(S,)`, allowed ones, as floating-point numbers.
            padding: of the same space.
            drawn: `(S,)`, uniform in [0, 1), for the ring mask.
        """


def he_deviation(layer: Layer) -> float:
    """Return He's fan-out standard deviation at size 3: sqrt(2 / (9 c_out)) for a square kernel.

    In a grouped convolution c_out is that of one group, in a transposed one c_in stands for it.
    """
    return math.sqrt(2 / (3**layer.ruled * layer.channels[0] / layer.groups))


def gaussian_mask(layer: Layer, soft_sizes: Tensor, sizes: Sequence[int], centre: str) -> Tensor:
    """Return a layer's mask of Eq. 6; its soft sizes and sizes are one per kernel or per axis."""
    shape = layer.shape(sizes)
    ruled = [
        (soft_sizes[axis], size)
        for axis, size in zip(layer.axes, shape, strict=True)
        if axis is not None
    ]
    return modulation_mask(*zip(*ruled, strict=True), centre).view(shape)
