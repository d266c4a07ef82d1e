"""Mean and standard deviation of pixels."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["SCALES", "pixel_statistics", "statistics_of_counts"]

SCALES = {torch.uint8: 255, torch.int16: 32768}
"""Greatest magnitude of each type of samples, by which they are divided."""

AT_ONCE = 1 << 22
"""Values that are counted at a time; the counts take 4 bytes for each."""


def statistics_of_counts(counts: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel on the scale 0..1.

    A constant channel gets the standard deviation 1, because it is used as a divisor.

    Args:
        counts: for parts of a set how often each value of the type occurs, the smallest first:
            `(C, 256)` of uint8, or `(C, 65536)` of int16.
    """
    # Counts are exact, where a float32 sum over a whole set is not.
    total = sum(counts)
    weights = total.double() / total.sum(1, keepdim=True)
    dtype = torch.uint8 if total.shape[1] == 256 else torch.int16
    values = torch.arange(total.shape[1], dtype=torch.float64, device=total.device)
    values = (values + torch.iinfo(dtype).min) / SCALES[dtype]
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel, see `normalize` for the scale.

    Args:
        images: `(N, C, H, W)` uint8, or `(N, C, T)` int16.
    """
    samples = max(1, AT_ONCE // max(1, math.prod(images.shape[1:])))
    return statistics_of_counts(_counts(part) for part in images.split(samples))


def _counts(images: Tensor) -> Tensor:
    kind = torch.iinfo(images.dtype)
    channels = [channel.flatten().int() - kind.min for channel in images.unbind(1)]
    return torch.stack([torch.bincount(c, minlength=kind.max - kind.min + 1) for c in channels])
