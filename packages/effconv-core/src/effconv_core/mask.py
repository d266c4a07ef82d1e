"""The mask that makes a kernel differentiable in its size (EffConv Eq. 6)."""

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
