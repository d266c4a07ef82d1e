"""The mask of EffConv Eq. 6 in plain PyTorch: what every other form of it is made of."""

from collections.abc import Sequence

import torch
from torch import Tensor


def middle_of(soft_sizes: Tensor, sizes: Tensor | int, centre: str) -> Tensor | float:
    """Return where the mask is highest, counted from 1, in taps.

    Args:
        soft_sizes: v, of any shape.
        sizes: s, a whole number, or a tensor that broadcasts with v.
        centre: v / 2 (`"paper"`) or (s + 1) / 2 (`"aligned"`).
    """
    return soft_sizes / 2 if centre == "paper" else (sizes + 1) / 2


def gaussian(offsets: Sequence[Tensor], soft_sizes: Tensor) -> Tensor:
    """Return exp(-(sum of squared offsets) / v^2) (EffConv Eq. 6), differentiable in all.

    Args:
        offsets: i - c along each axis that v rules, in taps; they broadcast with one another.
        soft_sizes: v, above 0; it broadcasts with the offsets.
    """
    return torch.exp(-sum(offset**2 for offset in offsets) / soft_sizes**2)
