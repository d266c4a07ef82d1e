"""SIREN: kernel values as a function of coordinates, by layers of sines."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SIREN(nn.Module):
    """Network of sine layers, coordinates `(P, axes)` to values `(P, outputs)`.

    h_1 = sin(omega (W_0 x + b_0)), h_{i+1} = sin(omega (W_i h_i + b_i)), and a linear map of the
    last h gives the values (Sitzmann et al. 2020, https://arxiv.org/abs/2006.09661; in CKConv,
    Romero et al. 2022, https://arxiv.org/abs/2102.02611, Section 4.2).

    Initial weights are uniform within 1 / axes in the first layer and within
    sqrt(6 / hidden) / omega in the others, biases within the square root of 1 / inputs.

    Args:
        axes: number of coordinates.
        outputs: values at each point.
        hidden: channels of the sine layers.
        layers: number of linear maps, at least 2; the last has no sine.
        omega_0: omega.
        generator: source of the initial values; None uses the global one.
    """

    def __init__(
        self,
        axes: int,
        outputs: int,
        *,
        hidden: int = 32,
        layers: int = 3,
        omega_0: float = 30.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()

        def uniform(*shape: int, bound: float) -> nn.Parameter:
            values = nn.init.uniform_(torch.empty(shape), -bound, bound, generator=generator)
            return nn.Parameter(values)

        self.omega_0 = omega_0
        bound, later = hidden**-0.5, math.sqrt(6 / hidden) / omega_0
        self.in_weight = uniform(hidden, axes, bound=1 / axes)
        self.in_bias = uniform(hidden, bound=axes**-0.5)
        self.hidden_weight = uniform(layers - 2, hidden, hidden, bound=later)
        self.hidden_bias = uniform(layers - 2, hidden, bound=bound)
        self.out_weight = uniform(outputs, hidden, bound=later)
        self.out_bias = uniform(outputs, bound=bound)

    def forward(self, points: Tensor) -> Tensor:
        """Return the values `(P, outputs)` at points `(P, axes)` of [-1, 1] on each axis."""
        values = torch.sin(self.omega_0 * F.linear(points, self.in_weight, self.in_bias))
        for weight, bias in zip(self.hidden_weight, self.hidden_bias, strict=True):
            values = torch.sin(self.omega_0 * F.linear(values, weight, bias))
        return F.linear(values, self.out_weight, self.out_bias)
