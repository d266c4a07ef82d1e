"""The size predictor: a soft kernel size for every layer (EffConv Eq. 1, 2)."""

import torch
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.gru import FixedInputGRUs


def squash(x: Tensor, k: int, tau: float, b: float) -> Tensor:
    """Map any number to a soft size in (1, 2k + 1): k tanh(x / tau + b) + k + 1 (EffConv Eq. 1)."""
    return k * torch.tanh(x / tau + b) + k + 1


def round_straight_through(soft_sizes: Tensor) -> Tensor:
    """Round to the nearest integer, half to even, with the gradient of the identity (Eq. 2)."""
    return soft_sizes + (torch.round(soft_sizes) - soft_sizes).detach()


class SizePredictor(nn.Module):
    """A GRU that runs one step for each layer on a fixed input, then a linear head a layer.

    The heads start at zero, so every layer starts at the soft size k tanh(b) + k + 1.

    Args:
        layers: L, how many layers are searched.
        config: k, tau, b and the hidden size.
        generator: source of the fixed input and of the initial values.
    """

    def __init__(self, layers: int, config: SearchConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = layers
        self.k, self.tau, self.b = config.k, config.tau, config.b
        self.gru = FixedInputGRUs(1, config.size_hidden, generator)
        self.head_weight = nn.Parameter(torch.zeros(layers, config.size_hidden))
        self.head_bias = nn.Parameter(torch.zeros(layers))

    def forward(self) -> Tensor:
        """Give the soft sizes v, `(L,)`."""
        states = self.gru([self.layers])
        x = (states * self.head_weight).sum(dim=1) + self.head_bias
        return squash(x, self.k, self.tau, self.b)
