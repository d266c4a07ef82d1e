"""Forecast many series, each by a separate GRU that reads the series value by value.

`python forecaster_bank.py` prints the error beside that of "the value stays as it is".

Each series is a wave with its own period whose rate changes as a given signal says. All GRUs read
their series and the signal, one input a timestep, for as many timesteps as each series has; then
they go on from their last states over the horizon, where only the signal is known.
"""

import math

import torch
from effconv_kernels import GRUBank
from torch import Tensor, nn


class ForecasterBank(nn.Module):
    """Encode L series of different lengths, and forecast each over its horizon.

    Args:
        lengths: known values of each series.
        horizons: values to forecast of each.
        hidden: units H of each GRU.
    """

    def __init__(self, lengths: list[int], horizons: list[int], hidden: int) -> None:
        super().__init__()
        self.lengths, self.horizons = lengths, horizons
        self.encoder = GRUBank(len(lengths), 2, hidden)
        self.decoder = GRUBank(len(lengths), 1, hidden)
        self.weight = nn.Parameter(torch.zeros(len(lengths), hidden))

    def forward(self, values: Tensor, signal: Tensor, ahead: Tensor) -> Tensor:
        """Forecast.

        Args:
            values: `(B, sum of lengths)`, known values, series after series.
            signal: `(B, sum of lengths)`, what moves them, at the same times.
            ahead: `(B, sum of horizons)`, the signal at the times to forecast.

        Returns:
            `(B, sum of horizons)`.
        """
        _, last = self.encoder(torch.stack([values, signal], -1), self.lengths)
        states, _ = self.decoder(ahead.unsqueeze(-1), self.horizons, last)
        parts = zip(states.split(self.horizons, 1), self.weight, strict=True)
        changes = torch.cat([part @ weight for part, weight in parts], 1)
        return last_values(values, self.lengths, self.horizons) + changes


def last_values(values: Tensor, lengths: list[int], horizons: list[int]) -> Tensor:
    """Forecast that each series keeps its last known value."""
    parts = zip(values.split(lengths, 1), horizons, strict=True)
    return torch.cat([part[:, -1:].expand(-1, horizon) for part, horizon in parts], 1)


def draw(
    batch: int, lengths: list[int], horizons: list[int], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw values, signal, the signal ahead and the values ahead of `batch` times."""
    known = []
    for layer, (length, horizon) in enumerate(zip(lengths, horizons, strict=True)):
        signal = torch.randn(batch, length + horizon, generator=generator)
        rate = 2 * math.pi / (6 + 2 * layer) * (1 + 0.5 * signal)
        start = 2 * math.pi * torch.rand(batch, 1, generator=generator)
        wave = torch.sin(start + rate.cumsum(1))
        known.append((wave[:, :length], signal[:, :length], signal[:, length:], wave[:, length:]))
    values, signal, ahead, after = (torch.cat(parts, 1) for parts in zip(*known, strict=True))
    return values, signal, ahead, after


def main(steps: int = 200) -> tuple[float, float]:
    """Train, print and return the mean squared errors of the bank and of the last value."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    lengths, horizons = [12, 16, 20], [3, 4, 5]
    bank = ForecasterBank(lengths, horizons, hidden=16)
    optimizer = torch.optim.Adam(bank.parameters(), lr=0.02)
    for _ in range(steps):
        *given, after = draw(64, lengths, horizons, generator)
        loss = (bank(*given) - after).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    *given, after = draw(1000, lengths, horizons, generator)
    with torch.no_grad():
        ours = (bank(*given) - after).square().mean().item()
    stays = (last_values(given[0], lengths, horizons) - after).square().mean().item()
    print(f"mean squared error: {ours:.3f}, of the last value {stays:.3f}")
    return ours, stays


if __name__ == "__main__":
    main()
