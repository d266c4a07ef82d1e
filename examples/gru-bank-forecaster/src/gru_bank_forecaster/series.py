"""Synthetic series, windows of them, and baseline forecasts without training."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NOISE = 0.1
"""Standard deviation of the unpredictable noise."""
PERIODS = (6.0, 24.0)


def draw_series(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw `(count, length)` periodic series in noise, each with its own period and shape."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    times = torch.arange(length) / uniform(*PERIODS, count, 1)  # in periods
    harmonics = torch.arange(1, 4).view(3, 1, 1)
    amplitudes = uniform(0.3, 1.0, 3, count, 1) / harmonics
    phases = uniform(0, 2 * math.pi, 3, count, 1)
    clean = (amplitudes * torch.sin(2 * math.pi * harmonics * times + phases)).sum(0)
    noise = NOISE * torch.randn(count, length, generator=generator)
    return uniform(-2, 2, count, 1) + clean + noise


def cut(
    series: Tensor, times: Sequence[int], window: int, horizons: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """Cut out the values before and after given times.

    Args:
        series: `(S, length)`.
        times: B indices of the first value to forecast.
        window: number of values before each.
        horizons: number of values of each series from there on.

    Returns:
        `(B, S, window)` and for each series `(B, horizon)`.
    """
    before = torch.stack([series[:, time - window : time] for time in times])
    after = [
        torch.stack([one[time : time + horizon] for time in times])
        for one, horizon in zip(series, horizons, strict=True)
    ]
    return before, after


def last_value(windows: Tensor, horizons: Sequence[int]) -> list[Tensor]:
    """Forecast the last value."""
    return [windows[:, s, -1:].expand(-1, horizon) for s, horizon in enumerate(horizons)]


def best_lag(series: Tensor, window: int) -> list[int]:
    """Return for each series `(S, length)` the lag at which it repeats itself best."""
    distances = [(series[:, lag:] - series[:, :-lag]).abs().mean(1) for lag in range(2, window + 1)]
    return (torch.stack(distances).argmin(0) + 2).tolist()


def repeated(windows: Tensor, lags: Sequence[int], horizons: Sequence[int]) -> list[Tensor]:
    """Forecast by repeating the last `lag` values."""
    return [
        windows[:, s, -lag:].repeat(1, -(-horizon // lag))[:, :horizon]
        for s, (lag, horizon) in enumerate(zip(lags, horizons, strict=True))
    ]
