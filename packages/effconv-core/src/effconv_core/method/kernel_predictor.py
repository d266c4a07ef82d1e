"""Kernels that GRUs write tap by tap (EffConv Eq. 5, 7), in two forms."""

import math
from collections.abc import Callable, Sequence

import torch
from effconv_kernels import assemble_kernels
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.method.gru import FixedInputGRUs
from effconv_core.method.kernel_bank import KernelBank
from effconv_core.method.kernel_source import gaussian_mask, he_deviation
from effconv_core.method.static_shapes import Padding, along_axes, mask_rows, timesteps
from effconv_core.space.search_space import Layer, SizeSpace


def _padded(
    space: SizeSpace,
    states: Sequence[Tensor],
    soft_sizes: Tensor,
    sizes: Tensor,
    *,
    padding: Padding,
    centre: str,
    values: Callable[[int, Tensor], Tensor],
) -> list[Tensor]:
    """Return the L padded kernels that GRUs write.

    Args:
        space: the layers.
        states: for each layer, `(taps, H)`, for all taps of its largest kernel.
        soft_sizes: `(S,)`.
        sizes: `(S,)`.
        padding: of the space.
        centre: of the mask.
        values: maps a layer's index and its states `(taps, H)` to kernel values,
            `(taps, c_out * c_in)`.
    """
    windows = padding.windows(sizes)
    profiles = mask_rows(soft_sizes, windows, centre)
    kernels = []
    for place, layer in enumerate(space.layers):
        entry, extents = space.entries(place), space.extents(place)
        written = states[place].index_select(0, timesteps(layer, windows.of(entry), extents))
        raw = values(place, written).t().reshape(*layer.channels, *extents)
        kernels.append(raw * along_axes(layer.axes, profiles[entry], extents))
    return kernels


class ProjectedKernelPredictor(nn.Module):
    """One GRU of hidden size H per layer, then a linear map to c_out * c_in values for each tap.

    The map starts so that unmasked kernels of size 3 have He's fan-out standard deviation.

    Args:
        space: the layers; c_in is that of one group.
        config: hidden size and mask centre.
        generator: source of the fixed inputs and of the initial values.
    """

    def __init__(self, space: SizeSpace, config: SearchConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.space, self.centre = space, config.centre
        layers = space.layers
        self.grus = FixedInputGRUs(len(layers), config.kernel_hidden, generator)
        self.rows = [c_out * c_in for c_out, c_in in (layer.channels for layer in layers)]
        weight = torch.randn(sum(self.rows), config.kernel_hidden, generator=generator)
        with torch.no_grad():
            states = self.grus([9] * len(layers)).view(len(layers), 9, -1)
            energy = states.square().sum(dim=2).mean(dim=1)
        for part, layer, norm in zip(weight.split(self.rows), layers, energy, strict=True):
            part *= he_deviation(layer) / norm.sqrt()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(sum(self.rows)))
        square = [place for place, layer in enumerate(layers) if layer.axes == (0, 0)]
        self.square, self.all_square = square, len(square) == len(layers)

    def forward(self, soft_sizes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return L masked kernels `(c_out, c_in, *taps)` for soft sizes `(S,)` and S sizes."""
        layers = self.space.layers
        entries = [self.space.entries(place) for place in range(len(layers))]
        shapes = [layer.shape(sizes[e]) for layer, e in zip(layers, entries, strict=True)]
        steps = [math.prod(shape) for shape in shapes]
        hidden = self.grus(steps)
        if self.all_square:
            return self._assembled(hidden, self.weight, self.bias, soft_sizes, sizes, layers)
        states, weights = hidden.split(steps), self.weight.split(self.rows)
        biases = self.bias.split(self.rows)
        kernels: list[Tensor | None] = [None] * len(layers)
        if self.square:
            chosen = [
                torch.cat([parts[place] for place in self.square])
                for parts in (states, weights, biases)
            ]
            firsts = [entries[place].start for place in self.square]
            square_layers = [layers[place] for place in self.square]
            square_sizes = [sizes[first] for first in firsts]
            found = self._assembled(*chosen, soft_sizes[firsts], square_sizes, square_layers)
            for place, kernel in zip(self.square, found, strict=True):
                kernels[place] = kernel
        for place, (layer, shape) in enumerate(zip(layers, shapes, strict=True)):
            if kernels[place] is None:
                # In float32 under autocast too, like the operator for square kernels.
                with torch.autocast(hidden.device.type, enabled=False):
                    raw = nn.functional.linear(states[place], weights[place], biases[place])
                entry = entries[place]
                mask = gaussian_mask(layer, soft_sizes[entry], sizes[entry], self.centre)
                kernels[place] = raw.t().reshape(*layer.channels, *shape) * mask
        return kernels

    def padded(
        self, soft_sizes: Tensor, sizes: Tensor, padding: Padding, drawn: Tensor | None = None
    ) -> list[Tensor]:
        """Return the kernels, zero-padded to the largest sizes; see `KernelSource`."""
        steps = [math.prod(self.space.extents(place)) for place in range(len(self.space.layers))]
        hidden = self.grus(steps)
        weights, biases = self.weight.split(self.rows), self.bias.split(self.rows)

        def projected(place: int, states: Tensor) -> Tensor:
            with torch.autocast(states.device.type, enabled=False):
                return nn.functional.linear(states, weights[place], biases[place])

        return _padded(
            self.space,
            hidden.split(steps),
            soft_sizes,
            sizes,
            padding=padding,
            centre=self.centre,
            values=projected,
        )

    def _assembled(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        soft_sizes: Tensor,
        sizes: Sequence[int],
        layers: Sequence[Layer],
    ) -> list[Tensor]:
        channels = [layer.channels for layer in layers]
        return assemble_kernels(
            hidden, weight, bias, soft_sizes, sizes=sizes, channels=channels, centre=self.centre
        )


class LiteralKernelPredictor(nn.Module):
    """One GRU per layer whose c_out * c_in hidden units are kernel values (Eq. 5 to the letter).

    A layer with 64 channels in and out has a hidden size of 4096 and 50 million recurrent weights.

    Args:
        space: the layers; c_in is that of one group.
        config: mask centre.
        generator: source of the fixed inputs and of the initial values.
    """

    def __init__(self, space: SizeSpace, config: SearchConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.space, self.centre = space, config.centre
        widths = [math.prod(layer.channels) for layer in space.layers]
        # Layers of the same width run in one call.
        self.members = {
            width: [layer for layer, other in enumerate(widths) if other == width]
            for width in sorted(set(widths))
        }
        self.grus = nn.ModuleList(
            FixedInputGRUs(len(layers), width, generator) for width, layers in self.members.items()
        )

    def forward(self, soft_sizes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return L masked kernels `(c_out, c_in, *taps)` for soft sizes `(S,)` and S sizes."""
        kernels: dict[int, Tensor] = {}
        layers = self.space.layers
        entries = [self.space.entries(place) for place in range(len(layers))]
        shapes = [layer.shape(sizes[e]) for layer, e in zip(layers, entries, strict=True)]
        for grus, places in zip(self.grus, self.members.values(), strict=True):
            steps = [math.prod(shapes[place]) for place in places]
            for place, states in zip(places, grus(steps).split(steps), strict=True):
                layer, entry = layers[place], entries[place]
                mask = gaussian_mask(layer, soft_sizes[entry], sizes[entry], self.centre)
                kernels[place] = states.t().reshape(*layer.channels, *shapes[place]) * mask
        return [kernels[place] for place in range(len(layers))]

    def padded(
        self, soft_sizes: Tensor, sizes: Tensor, padding: Padding, drawn: Tensor | None = None
    ) -> list[Tensor]:
        """Return the kernels, zero-padded to the largest sizes; see `KernelSource`."""
        states: dict[int, Tensor] = {}
        for grus, places in zip(self.grus, self.members.values(), strict=True):
            steps = [math.prod(self.space.extents(place)) for place in places]
            states |= dict(zip(places, grus(steps).split(steps), strict=True))
        return _padded(
            self.space,
            [states[place] for place in range(len(states))],
            soft_sizes,
            sizes,
            padding=padding,
            centre=self.centre,
            values=lambda _, written: written,
        )


SOURCES = {
    "projected": ProjectedKernelPredictor,
    "literal": LiteralKernelPredictor,
    "bank": KernelBank,
}


def kernel_predictor(
    space: SizeSpace, config: SearchConfig, generator: torch.Generator
) -> ProjectedKernelPredictor | LiteralKernelPredictor | KernelBank:
    """Build the source of kernels that `config.kernel_form` names."""
    return SOURCES[config.kernel_form](space, config, generator)
