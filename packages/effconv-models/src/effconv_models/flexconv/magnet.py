"""MAGNet: kernel values as a function of coordinates."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MAGNet(nn.Module):
    """Multiplicative anisotropic Gabor network, coordinates `(P, axes)` to values `(P, outputs)`.

    With Gabor filters g_1 to g_{n+1} of `hidden` channels, h_1 = g_1(x), h_{i+1} =
    (W_i h_i + b_i) g_{i+1}(x), and a linear map of the last h gives the values. A filter is
    exp(-|gamma (x - mu)|^2 / 2) sin(w x + phase), with its own gamma for each axis (FlexConv,
    Romero et al. 2022, https://arxiv.org/abs/2110.08059, Section 3.2).

    Initial values are those of the authors' code: gamma of filter i from Gamma(6 / i, 1), mu
    evenly within `spread` of `centre`, w in proportion to gamma and `input_scale`. The isotropic
    form has one gamma for all axes, from Gamma(6 / (n + 1), 1) for each filter: the Gabor network
    of Fathony et al. 2021, https://openreview.net/forum?id=OmtmcPkkhT, as the authors' code has it.

    Args:
        axes: number of coordinates.
        outputs: values at each point.
        hidden: channels of the filters.
        layers: n, the number of hidden linear maps; there is one filter more.
        input_scale: scale of the initial frequencies.
        centre: centre, on all axes, of the region of the filters' initial centres.
        spread: half-width of that region.
        isotropic: whether a filter has one gamma for all axes.
        generator: source of the initial values; None uses the global one.
    """

    def __init__(
        self,
        axes: int,
        outputs: int,
        *,
        hidden: int = 32,
        layers: int = 3,
        input_scale: float = 25.6,
        centre: float = 0.0,
        spread: float = 1.0,
        isotropic: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()

        def uniform(*shape: int, bound: float) -> Tensor:
            return nn.init.uniform_(torch.empty(shape), -bound, bound, generator=generator)

        filters = layers + 1
        shapes = [filters] * filters if isotropic else range(1, filters + 1)
        widths = 1 if isotropic else axes
        concentration = torch.stack([torch.full((hidden, widths), 6 / i) for i in shapes])
        gamma = torch._standard_gamma(concentration, generator=generator)
        scale = input_scale / math.sqrt(filters)
        frequency = scale * gamma * uniform(filters, hidden, axes, bound=axes**-0.5)
        self.gamma = nn.Parameter(gamma)
        self.mu = nn.Parameter(centre + uniform(filters, hidden, axes, bound=spread))
        self.frequency = nn.Parameter(frequency)
        self.phase = nn.Parameter(uniform(filters, hidden, bound=math.pi))
        bound = hidden**-0.5
        self.hidden_weight = nn.Parameter(uniform(layers, hidden, hidden, bound=bound))
        self.hidden_bias = nn.Parameter(uniform(layers, hidden, bound=bound))
        self.out_weight = nn.Parameter(uniform(outputs, hidden, bound=bound))
        self.out_bias = nn.Parameter(uniform(outputs, bound=bound))

    def forward(self, points: Tensor) -> Tensor:
        """Return the values `(P, outputs)` at points `(P, axes)` of [-1, 1] on each axis."""
        distance = self.gamma[:, None] * (points[:, None] - self.mu[:, None])
        wave = torch.sin(points @ self.frequency.mT + self.phase[:, None])
        filters = torch.exp(-0.5 * distance.square().sum(-1)) * wave
        values = filters[0]
        for weight, bias, gabor in zip(
            self.hidden_weight, self.hidden_bias, filters[1:], strict=True
        ):
            values = F.linear(values, weight, bias) * gabor
        return F.linear(values, self.out_weight, self.out_bias)

    def frequencies(self, standard_deviations: float) -> Tensor:
        """Return the highest frequency of each filter on each axis, `(filters, axes)`, in cycles.

        The coordinate's unit is 1, so that an axis has 2. That of the sine is |w| / 2 pi; the
        window widens it by `standard_deviations` of its own spectrum, gamma / 2 pi each.
        """
        widest = self.frequency.abs() + standard_deviations * self.gamma.abs()
        return widest.amax(1) / (2 * math.pi)
