"""Where kernels come from: GRUs that write them tap by tap (EffConv Eq. 5, 7), or a bank."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from effconv_kernels import assemble_kernels
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.draws import Draws
from effconv_core.gru import FixedInputGRUs
from effconv_core.mask import modulation_mask, ring_mask


class KernelSource(Protocol):
    """Anything that gives masked kernels for sizes; a module, so that it can be trained."""

    def __call__(self, soft_sizes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Give L kernels `(c_out, c_in, s, s)`, differentiable in the soft sizes `(L,)`."""


class ProjectedKernelPredictor(nn.Module):
    """One GRU of hidden size H a layer, then a linear map to c_out * c_in values for each tap.

    The map starts so that unmasked kernels of size 3 have He's fan-out standard deviation,
    sqrt(2 / (9 c_out)).

    Args:
        channels: L pairs `(c_out, c_in)`.
        config: hidden size and mask centre.
        generator: source of the fixed inputs and of the initial values.
    """

    def __init__(
        self,
        channels: Sequence[tuple[int, int]],
        config: SearchConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.channels = list(channels)
        self.centre = config.centre
        self.grus = FixedInputGRUs(len(channels), config.kernel_hidden, generator)
        rows = [c_out * c_in for c_out, c_in in channels]
        weight = torch.randn(sum(rows), config.kernel_hidden, generator=generator)
        with torch.no_grad():
            states = self.grus([9] * len(channels)).view(len(channels), 9, -1)
            energy = states.square().sum(dim=2).mean(dim=1)
        for part, (c_out, _), norm in zip(weight.split(rows), channels, energy, strict=True):
            part *= math.sqrt(2 / (9 * c_out)) / norm.sqrt()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(sum(rows)))

    def forward(self, soft_sizes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Give L masked kernels `(c_out, c_in, s, s)` for soft sizes `(L,)` and sizes."""
        hidden = self.grus([size * size for size in sizes])
        return assemble_kernels(
            hidden,
            self.weight,
            self.bias,
            soft_sizes,
            sizes=sizes,
            channels=self.channels,
            centre=self.centre,
        )


class LiteralKernelPredictor(nn.Module):
    """One GRU a layer whose c_out * c_in hidden units are the kernel values (Eq. 5 to the letter).

    A layer with 64 channels in and out has a hidden size of 4096 and 50 million recurrent weights.

    Args:
        channels: L pairs `(c_out, c_in)`.
        config: mask centre.
        generator: source of the fixed inputs and of the initial values.
    """

    def __init__(
        self,
        channels: Sequence[tuple[int, int]],
        config: SearchConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.channels = list(channels)
        self.centre = config.centre
        widths = [c_out * c_in for c_out, c_in in channels]
        # Layers of one width run in one call.
        self.members = {
            width: [layer for layer, other in enumerate(widths) if other == width]
            for width in sorted(set(widths))
        }
        self.grus = nn.ModuleList(
            FixedInputGRUs(len(layers), width, generator) for width, layers in self.members.items()
        )

    def forward(self, soft_sizes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Give L masked kernels `(c_out, c_in, s, s)` for soft sizes `(L,)` and sizes."""
        kernels: dict[int, Tensor] = {}
        for grus, layers in zip(self.grus, self.members.values(), strict=True):
            steps = [sizes[layer] ** 2 for layer in layers]
            for layer, states in zip(layers, grus(steps).split(steps), strict=True):
                size = sizes[layer]
                mask = modulation_mask(soft_sizes[layer], size, self.centre)
                kernels[layer] = states.t().reshape(*self.channels[layer], size, size) * mask
        return [kernels[layer] for layer in range(len(self.channels))]


class KernelBank(nn.Module):
    """One kernel of the largest size a layer, learned directly and cropped to s (not in the paper).

    A tap keeps its place over the image when the size changes, unlike in the row-major order of
    Eq. 5. Values start with He's fan-out standard deviation at size 3, sqrt(2 / (9 c_out)).

    Args:
        channels: L pairs `(c_out, c_in)`.
        config: largest size, mask and the seed of its draws.
        generator: source of the initial values.
    """

    def __init__(
        self,
        channels: Sequence[tuple[int, int]],
        config: SearchConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.k, self.centre = config.k, config.centre
        self.draws = Draws(config.seed, 1) if config.mask == "ring" else None
        self.kernels = nn.ParameterList(
            torch.randn(c_out, c_in, config.largest, config.largest, generator=generator)
            * math.sqrt(2 / (9 * c_out))
            for c_out, c_in in channels
        )

    def forward(self, soft_sizes: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """Give L masked kernels `(c_out, c_in, s, s)` for soft sizes `(L,)` and sizes."""
        masked = []
        # In evaluation every ring that has a chance is on.
        drawn = self.draws(len(sizes)) if self.draws and self.training else torch.zeros(len(sizes))
        drawn = drawn.to(soft_sizes.device)  # in bfloat16 a number near 1 would become 1
        for layer, (kernel, size) in enumerate(zip(self.kernels, sizes, strict=True)):
            first = self.k - (size - 1) // 2  # where "same" padding puts the window's first tap
            window = slice(first, first + size)
            if self.draws:
                mask = ring_mask(soft_sizes[layer], size, drawn[layer])
            else:
                mask = modulation_mask(soft_sizes[layer], size, self.centre)
            masked.append(kernel[:, :, window, window] * mask)
        return masked


SOURCES = {
    "projected": ProjectedKernelPredictor,
    "literal": LiteralKernelPredictor,
    "bank": KernelBank,
}


def kernel_predictor(
    channels: Sequence[tuple[int, int]], config: SearchConfig, generator: torch.Generator
) -> ProjectedKernelPredictor | LiteralKernelPredictor | KernelBank:
    """Make the source of kernels that the config names."""
    return SOURCES[config.kernel_form](channels, config, generator)
