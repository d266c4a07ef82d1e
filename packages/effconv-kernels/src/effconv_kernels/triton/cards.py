"""What a GPU and Triton's version leave of a thread's registers."""

from functools import cache

import torch
import triton

OLD = tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 7)
"""Whether Triton lays a tile in which nothing is contiguous out by its first dimension."""
ALL = 255
"""Registers of a thread; by itself the compiler may spill a few numbers to take no more than 64."""


@cache
def card_of(device: torch.device) -> int:
    """Return a GPU's compute capability, such as 86 for 8.6; on a CPU, which interprets, 90."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def is_tight(card: int) -> bool:
    """Return whether programs of GRUs need more registers than for sm_80, sm_90 by Triton 3.7."""
    return card not in (80, 90) or OLD


def is_narrow(card: int) -> bool:
    """Return whether the assembly's programs, too, need more."""
    return card >= 120 or OLD
