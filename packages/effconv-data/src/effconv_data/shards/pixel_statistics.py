"""Mean and standard deviation of pixels."""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["SCALES", "pixel_statistics", "statistics_of_counts"]

SCALES = {torch.uint8: 255, torch.int16: 32768}
"""Greatest magnitude of each type of samples, by which they are divided."""


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
    """Return the mean and standard deviation of each channel, see `normalize` for the scale.

    Args:
        images: `(N, C, H, W)` uint8, or `(N, C, T)` int16.
    """
    if images.dtype == torch.int16:
        values = images.transpose(0, 1).flatten(1).double() / SCALES[torch.int16]
        std, mean = torch.std_mean(values, 1, correction=0)
        return tuple(mean.tolist()), tuple(torch.where(std > 0, std, 1.0).tolist())
    channels = [torch.bincount(c.flatten(), minlength=256) for c in images.unbind(1)]
    return statistics_of_counts([torch.stack(channels)])
