"""Training on random windows of the series, and errors on windows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gru_bank_forecaster.forecaster import GRUBankForecaster
from gru_bank_forecaster.series import cut


def errors(forecasts: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Return the mean absolute error of each series, `(S,)`."""
    pairs = zip(forecasts, targets, strict=True)
    return torch.stack([(forecast - target).abs().mean() for forecast, target in pairs])


def fit(
    model: GRUBankForecaster,
    series: Tensor,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
) -> list[float]:
    """Train all GRUs at once, each on its own series; return the error of each step.

    Args:
        model: model of S series, trained in place.
        series: `(S, length)`.
        steps: steps of Adam, whose rate falls to zero along a cosine.
        batch_size: times per step.
        learning_rate: rate of the first step.
        generator: source of the times.
    """
    last = series.shape[1] - max(model.horizons)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        times = torch.randint(model.window, last + 1, (batch_size,), generator=generator).tolist()
        windows, targets = cut(series, times, model.window, model.horizons)
        loss = errors(model(windows), targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses
