"""The size predictor: a soft kernel size for each layer (EffConv Eq. 1, 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.method.gru import FixedInputGRUs


def squash(
    x: Tensor, k: float | Tensor, tau: float, b: float, smallest: int | Tensor = 1
) -> Tensor:
    """Map any number to a soft size from `smallest` to `smallest + 2k` (EffConv Eq. 1).

    That is k tanh(x / tau + b) + k + 1 for the paper's smallest size, 1.
    """
    return k * torch.tanh(x / tau + b) + k + smallest


class SizePredictor(nn.Module):
    """A GRU that runs one step per size on a fixed input, with a linear head for each size.

    The heads start at zero, so that with the paper's range each layer starts at the soft size
    k tanh(b) + k + 1.

    Args:
        ranges: V ranges, the allowed values of each size variable (one a layer by default).
        config: tau, b and the hidden size.
        generator: source of the fixed input and of the initial values.
    """

    def __init__(
        self, ranges: Sequence[range], config: SearchConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.tau, self.b = config.tau, config.b
        self.gru = FixedInputGRUs(1, config.size_hidden, generator)
        self.head_weight = nn.Parameter(torch.zeros(len(ranges), config.size_hidden))
        self.head_bias = nn.Parameter(torch.zeros(len(ranges)))
        smallest = torch.tensor([float(allowed[0]) for allowed in ranges])
        largest = torch.tensor([float(allowed[-1]) for allowed in ranges])
        self.register_buffer("smallest", smallest, persistent=False)
        self.register_buffer("largest", largest, persistent=False)
        self.register_buffer("half_range", (largest - smallest) / 2, persistent=False)

    def forward(self) -> Tensor:
        """Return the soft sizes v, `(V,)`."""
        states = self.gru([len(self.head_bias)])
        x = (states * self.head_weight).sum(dim=1) + self.head_bias
        return squash(x, self.half_range, self.tau, self.b, self.smallest)
