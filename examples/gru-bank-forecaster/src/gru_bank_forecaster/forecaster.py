"""The model: a bank of GRUs that unroll forecasts from the last values of their series."""

from collections.abc import Sequence

import torch
from effconv_kernels import gru_unroll
from torch import Tensor, nn


class GRUBankForecaster(nn.Module):
    """S small GRUs, one per series, each with its own horizon.

    Args:
        horizons: number of values to forecast for each series.
        window: number of past values that each GRU gets.
        hidden: units H of each GRU.
        generator: source of the initial values; None uses the global one.
    """

    def __init__(
        self,
        horizons: Sequence[int],
        *,
        window: int,
        hidden: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.horizons, self.window = list(horizons), window

        def uniform(*shape: int) -> nn.Parameter:  # as in torch.nn.GRUCell
            values = torch.empty(len(self.horizons), *shape)
            return nn.Parameter(values.uniform_(-1, 1, generator=generator) / hidden**0.5)

        self.weight_ih = uniform(3 * hidden, window)
        self.weight_hh = uniform(3 * hidden, hidden)
        self.bias_ih = uniform(3 * hidden)
        self.bias_hh = uniform(3 * hidden)
        self.weight_out = uniform(hidden)
        self.bias_out = uniform()
        owner = torch.arange(len(self.horizons)).repeat_interleave(torch.tensor(self.horizons))
        self.register_buffer("owner", owner, persistent=False)

    def forward(self, windows: Tensor) -> tuple[Tensor, ...]:
        """Forecast.

        Args:
            windows: `(B, S, window)`, the last values of each series at B times.

        Returns:
            For each series `(B, horizon)`, the following values.
        """
        level = windows.mean(-1)
        spread = windows.std(-1) + 1e-6
        inputs = (windows - level.unsqueeze(-1)) / spread.unsqueeze(-1)
        gates = torch.einsum("sgw,bsw->bsg", self.weight_ih, inputs) + self.bias_ih
        states = torch.vmap(self._unroll)(gates)  # (B, sum of horizons, H)
        values = (states * self.weight_out[self.owner]).sum(-1) + self.bias_out[self.owner]
        values = level[:, self.owner] + spread[:, self.owner] * values
        return values.split(self.horizons, 1)

    def _unroll(self, gates: Tensor) -> Tensor:
        return gru_unroll(gates, self.weight_hh, self.bias_hh, self.horizons)
