"""Kernels that GRUs write tap by tap (EffConv Eq. 5, 7), in two forms."""

import math
from collections.abc import Sequence

import torch
from effconv_kernels import assemble_kernels
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.method.gru import FixedInputGRUs
from effconv_core.method.kernel_bank import KernelBank
from effconv_core.method.kernel_source import gaussian_mask, he_deviation
from effconv_core.method.static_shapes import Padding, Windows, along_axes, mask_rows, timesteps
from effconv_core.space.search_space import SizeSpace


def _gathered(space: SizeSpace, states: Sequence[Tensor], windows: Windows) -> list[Tensor]:
    """Return for each layer the states `(taps, H)` that write the taps of its largest kernel."""
    found = []
    for place, (layer, of_layer) in enumerate(zip(space.layers, states, strict=True)):
        own, extents = windows.of(space.entries(place)), space.extents(place)
        found.append(of_layer.index_select(0, timesteps(layer, own, extents)))
    return found


def _padded_mask(
    space: SizeSpace, kernels: Sequence[Tensor], soft_sizes: Tensor, windows: Windows, centre: str
) -> list[Tensor]:
    """Multiply L kernels of the largest sizes by the mask of Eq. 6, which is 0 beyond windows."""
    profiles = mask_rows(soft_sizes, windows, centre)
    return [
        kernel * along_axes(layer.axes, profiles[space.entries(place)], space.extents(place))
        for place, (layer, kernel) in enumerate(zip(space.layers, kernels, strict=True))
    ]


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
        self.channels = [layer.channels for layer in layers]
        self.axes = [
            tuple(
                None if axis is None else space.entries(place).start + axis for axis in layer.axes
            )
            for place, layer in enumerate(layers)
        ]

    def forward(self, soft_sizes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Return L masked kernels `(c_out, c_in, *taps)` for soft sizes `(S,)` and S sizes."""
        entries = [self.space.entries(place) for place in range(len(self.space.layers))]
        shapes = [
            layer.shape(sizes[e]) for layer, e in zip(self.space.layers, entries, strict=True)
        ]
        return assemble_kernels(
            self.grus([math.prod(shape) for shape in shapes]),
            self.weight,
            self.bias,
            soft_sizes,
            sizes=shapes,
            channels=self.channels,
            axes=self.axes,
            centre=self.centre,
        )

    def padded(
        self, soft_sizes: Tensor, sizes: Tensor, padding: Padding, drawn: Tensor | None = None
    ) -> list[Tensor]:
        """Return the kernels, zero-padded to the largest sizes; see `KernelSource`."""
        shapes = [self.space.extents(place) for place in range(len(self.space.layers))]
        steps = [math.prod(shape) for shape in shapes]
        windows = padding.windows(sizes)
        states = torch.cat(_gathered(self.space, self.grus(steps).split(steps), windows))
        kernels = assemble_kernels(
            states, self.weight, self.bias, None, sizes=shapes, channels=self.channels
        )
        # The windows lie anywhere in the largest kernels, so their masks come afterwards.
        return _padded_mask(self.space, kernels, soft_sizes, windows, self.centre)


class LiteralKernelPredictor(nn.Module):
    """One GRU per layer whose c_out * c_in hidden units are kernel values (Eq. 5 to the letter).

    A layer with 64 channels in and out has a hidden size of 4096 and 50 million recurrent weights.
    `gru_unroll` takes GRUs of any size, on a GPU in Triton up to 512 hidden units and as one matrix
    product a timestep beyond. There is no linear map here, so `assemble_kernels` is not needed.

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
        windows = padding.windows(sizes)
        written = _gathered(self.space, [states[place] for place in range(len(states))], windows)
        kernels = [
            values.t().reshape(*layer.channels, *self.space.extents(place))
            for place, (layer, values) in enumerate(zip(self.space.layers, written, strict=True))
        ]
        return _padded_mask(self.space, kernels, soft_sizes, windows, self.centre)


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
