"""Masks that make a kernel differentiable in its size: EffConv Eq. 6, and a ring."""

from typing import Literal

import torch
from torch import Tensor


def modulation_mask(
    soft_size: Tensor, size: int, centre: Literal["paper", "aligned"] = "paper"
) -> Tensor:
    """Give the mask exp(-((i - c)^2 + (j - c)^2) / v^2), i and j from 1 to s (EffConv Eq. 6).

    Args:
        soft_size: scalar tensor v, above 0.
        size: s, the kernel size.
        centre: c is v / 2 (`"paper"`) or (s + 1) / 2 (`"aligned"`).

    Returns:
        `(s, s)`, differentiable in `soft_size`.
    """
    taps = torch.arange(1, size + 1, dtype=soft_size.dtype, device=soft_size.device)
    middle = soft_size / 2 if centre == "paper" else (size + 1) / 2
    profile = torch.exp(-(((taps - middle) / soft_size) ** 2))
    return torch.outer(profile, profile)


def ring_mask(soft_size: Tensor, size: int, draw: Tensor) -> Tensor:
    """Give 1 everywhere but in the outermost ring of taps, which is on or off (not in the paper).

    The ring, what a kernel of size s has and one of s - 1 has not, is on with the probability
    v - (s - 1), and passes its gradient on to v as that probability would. With v spread evenly
    from s - 1 to s, as exploration spreads it, the mean of dL/dv is the trapezoidal rule for the
    difference of the loss at the two sizes. A fixed mask has no such slope to give once the kernel
    has adapted to it: the taps make up for what the mask takes.

    Args:
        soft_size: scalar tensor v, from s - 1 to s.
        size: s, the kernel size.
        draw: scalar tensor, uniform in [0, 1): the ring is on where it is below the probability.

    Returns:
        `(s, s)`, differentiable in `soft_size`.
    """
    probability = soft_size - (size - 1)
    on = (draw < probability).to(soft_size)
    taps = torch.arange(size, device=soft_size.device)
    first = (size - 1) // 2 - (size - 2) // 2  # where the window of s - 1 starts in that of s
    inside = ((taps >= first) & (taps < first + size - 1)).to(soft_size)
    inner = torch.outer(inside, inside)
    return inner + (1 - inner) * (on + probability - probability.detach())
