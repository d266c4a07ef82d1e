"""Mean and standard deviation of pixels."""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["pixel_statistics", "statistics_of_counts"]


def statistics_of_counts(counts: Iterable[Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel on the scale 0..1.

    A constant channel gets the standard deviation 1, because it is used as a divisor.

    Args:
        counts: counts `(C, 256)` of the values of parts of a set.
    """
    # Counts are exact, where a float32 sum over a whole set is not.
    total = sum(counts)
    weights = total.double() / total.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64, device=total.device) / 255
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel on the scale 0..1.

    Args:
        images: `(N, C, H, W)` uint8.
    """
    channels = [torch.bincount(c.flatten(), minlength=256) for c in images.unbind(1)]
    return statistics_of_counts([torch.stack(channels)])
