"""GRUs on fixed inputs, which both predictors of the paper use."""

import math
from collections.abc import Sequence

import torch
from effconv_kernels import gru_unroll
from torch import Tensor, nn

INPUTS = 64
"""Width of the fixed inputs z and z'. They never change, so it affects only the initial values."""


class FixedInputGRUs(nn.Module):
    """L independent GRUs, each with a fixed N(0, 1) input and a zero initial state.

    Args:
        layers: L, their number.
        hidden: H, hidden size of each.
        generator: source of the inputs and of the initial values, which are those of
            `torch.nn.GRU`: uniform within 1 / sqrt(H) of zero.
    """

    def __init__(self, layers: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = hidden
        self.register_buffer("z", torch.randn(layers, INPUTS, generator=generator))
        bound = 1 / math.sqrt(hidden)

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.weight_ih = uniform(layers, 3 * hidden, INPUTS)
        self.weight_hh = uniform(layers, 3 * hidden, hidden)
        self.bias_ih = uniform(layers, 3 * hidden)
        self.bias_hh = uniform(layers, 3 * hidden)

    def forward(self, steps: Sequence[int]) -> Tensor:
        """Return the states after each timestep, layer after layer, as `(sum steps, H)`."""
        gates = torch.einsum("lgi,li->lg", self.weight_ih, self.z) + self.bias_ih
        return gru_unroll(gates, self.weight_hh, self.bias_hh, steps)
