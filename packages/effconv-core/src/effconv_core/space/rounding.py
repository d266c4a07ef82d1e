"""Soft sizes to allowed ones (EffConv Eq. 2)."""

import math

import torch
from torch import Tensor


def nearest_size(soft_size: float, allowed: range) -> int:
    """Round to the nearest allowed size, half to even where all integers are allowed (Eq. 2)."""
    first, step = allowed[0], allowed.step
    offset = first % step
    return min(max(offset + step * round((soft_size - offset) / step), first), allowed[-1])


def size_above(soft_size: float, allowed: range) -> int:
    """Return the smallest allowed size above a soft size, or the largest if there is none."""
    steps = math.floor((soft_size - allowed[0]) / allowed.step) + 1
    return min(allowed[0] + steps * allowed.step, allowed[-1])


def round_straight_through(soft_sizes: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Round to the nearest integer, half to even, with the gradient of the identity (Eq. 2).

    Args:
        soft_sizes: v, of any shape.
        sizes: the rounded values, if not every integer is allowed; None rounds to integers.
    """
    sizes = torch.round(soft_sizes) if sizes is None else sizes
    return soft_sizes + (sizes - soft_sizes).detach()
