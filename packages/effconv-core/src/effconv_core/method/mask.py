"""Masks that make a kernel differentiable in its size: EffConv Eq. 6, and a ring mask."""

from collections.abc import Sequence
from functools import reduce
from operator import mul
from typing import Literal

import torch
from effconv_kernels.mask import gaussian, middle_of
from torch import Tensor


def modulation_mask(
    soft_sizes: Sequence[Tensor],
    sizes: Sequence[int],
    centre: Literal["paper", "aligned"] = "paper",
) -> Tensor:
    """Return the mask exp(-((i - c)^2 + (j - c)^2) / v^2), i and j from 1 to s (EffConv Eq. 6).

    There may be any number of axes, each with its own v and s: their exponents add up.

    Args:
        soft_sizes: scalar tensors v, above 0, one for each axis; all the same for a square kernel.
        sizes: s, the kernel's size along each axis.
        centre: c is v / 2 (`"paper"`) or (s + 1) / 2 (`"aligned"`).

    Returns:
        A tensor of shape `sizes`, differentiable in the soft sizes.
    """
    profiles = []
    for v, size in zip(soft_sizes, sizes, strict=True):
        taps = torch.arange(1, size + 1, dtype=v.dtype, device=v.device)
        profiles.append(gaussian([taps - middle_of(v, size, centre)], v))
    return outer(profiles)


def ring_mask(
    soft_size: Tensor,
    size: int,
    draw: Tensor,
    *,
    axes: Sequence[bool] = (True, True),
    step: int = 1,
) -> Tensor:
    """Return a mask that is 1 but for its outermost ring, which is on or off (not in the paper).

    The ring, the taps of a kernel of size s that one of s - step lacks, is on with the probability
    (v - (s - step)) / step, and passes its gradient on to v as that probability would. With v
    spread evenly from s - step to s, as exploration spreads it, the mean of dL/dv is the
    trapezoidal rule for the slope of the loss between the two sizes. A fixed mask has no such
    slope to give once the kernel has adapted to it: the taps make up for what the mask takes.

    Args:
        soft_size: scalar tensor v, from s - step to s.
        size: s, the kernel size.
        draw: scalar tensor, uniform in [0, 1): the ring is on where it is below the probability.
        axes: for each axis of the kernel, whether s is its size. Along the others the mask is the
            same everywhere and has the extent 1, so that it is broadcast.
        step: from one size to the next that the layer may have.

    Returns:
        A tensor with s taps along each such axis, differentiable in `soft_size`.
    """
    probability = (soft_size - (size - step)) / step
    on = (draw < probability).to(soft_size)
    taps = torch.arange(size, device=soft_size.device)
    first = (size - 1) // 2 - (size - step - 1) // 2  # where the smaller window starts
    inside = ((taps >= first) & (taps < first + size - step)).to(soft_size)
    inner = outer([inside if ruled else inside.new_ones(1) for ruled in axes])
    return inner + (1 - inner) * (on + probability - probability.detach())


def outer(profiles: Sequence[Tensor]) -> Tensor:
    """Return the outer product of one vector per axis."""
    last = len(profiles) - 1
    return reduce(mul, (p.view(-1, *[1] * (last - axis)) for axis, p in enumerate(profiles)))
