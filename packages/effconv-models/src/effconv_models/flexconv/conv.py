"""FlexConv: a convolution that learns its kernel size during training.

Romero et al., FlexConv: Continuous Kernel Convolutions with Differentiable Kernel Sizes (2022),
https://arxiv.org/abs/2110.08059.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv_models._validation import check_positive
from effconv_models.flexconv.config import FlexConvConfig
from effconv_models.flexconv.fft_conv import fft_conv
from effconv_models.flexconv.magnet import MAGNet
from effconv_models.flexconv.siren import SIREN

CONVOLVE = {1: F.conv1d, 2: F.conv2d}
PLAIN = {1: nn.Conv1d, 2: nn.Conv2d}
ZERO_PAD = {1: nn.ZeroPad1d, 2: nn.ZeroPad2d}

SPREAD = 1.667  # of the filters' centres over the mask's width, as in the authors' code


class FlexConv(nn.Module):
    """Convolution with a kernel that is a network's values, as a rule times a Gaussian mask.

    `(B, c_in, *lengths)` becomes `(B, c_out, *outputs)`, by default with outputs =
    ceil(lengths / stride). The kernel is sampled on a grid from -1 to 1 on each axis: network(x)
    times the product over the axes of exp(-((x - mean) / width)^2 / 2). Mean and width are
    learned, so the kernel's size is. Taps beyond the threshold of the mask on an axis are cropped
    before the kernel is generated; that is the kernel's window, which need not be symmetric.
    Without a mask (`masked` of the config) the kernel is the whole grid.

    The window depends on values of `mask`, so a forward pass on a GPU waits for them.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        grid: taps of the uncropped kernel, one odd number for all axes or one for each; usually
            the input size, rounded up to an odd number.
        axes: 1 for sequences, 2 for images.
        stride: step of the window.
        groups: groups of channels.
        bias: whether to add a learned number to each output channel; it starts at 0.
        causal: on one axis, whether outputs depend only on current and earlier inputs; the mask
            then starts at the newest tap.
        margins: for each axis the zeros before and after the input in addition to those that the
            kernel needs, so that `((0, 0), (0, 0))` is "same" padding and a negative number crops.
        config: settings shared by layers.
        generator: source of the initial values; None uses the global one.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if a number is not allowed.

    Examples:
        >>> layer = FlexConv(3, 8, 33)
        >>> layer(torch.zeros(2, 3, 32, 32)).shape, layer.effective_size
        (torch.Size([2, 8, 32, 32]), (5, 5))
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        grid: int | Sequence[int],
        *,
        axes: int = 2,
        stride: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = True,
        causal: bool = False,
        margins: Sequence[tuple[int, int]] | None = None,
        config: FlexConvConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if axes not in CONVOLVE:
            raise ValueError(f"axes is {axes!r}; FlexConv has 1 or 2, so pass one of them")
        if causal and axes != 1:
            raise ValueError("causal is True with 2 axes; only sequences have an order, so pass 1")
        self.config = config or FlexConvConfig()
        self.c_in, self.c_out = check_positive("c_in", c_in), check_positive("c_out", c_out)
        self.groups = check_positive("groups", groups)
        if c_in % groups or c_out % groups:
            raise ValueError(
                f"groups is {groups} for {c_in} and {c_out} channels; it must divide both"
            )
        self.grid = _for_each_axis("grid", grid, axes)
        for taps in self.grid:
            if taps < 3 or taps % 2 == 0:
                raise ValueError(
                    f"grid is {grid!r}; a grid has a middle, so pass odd numbers from 3 up"
                )
        self.stride = _for_each_axis("stride", stride, axes)
        self.causal = causal
        self.margins = tuple(margins) if margins is not None else ((0, 0),) * axes
        if len(self.margins) != axes:
            raise ValueError(f"margins is {margins!r}; pass a pair for each of the {axes} axes")
        mean = 1.0 if causal else 0.0
        self.network = _network(self.config, axes, c_out * c_in // groups, mean, generator)
        self.gain = 1.0
        masks = torch.tensor([[mean, self.config.mask_width]] * axes)
        self.mask = nn.Parameter(masks) if self.config.masked else None
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None

    @property
    def origins(self) -> tuple[int, ...]:
        """For each axis the tap that is aligned with the position of the output."""
        return tuple(taps - 1 if self.causal else taps // 2 for taps in self.grid)

    @property
    def window(self) -> tuple[tuple[int, int], ...]:
        """For each axis the first and the last tap of the grid that are not cropped.

        Taps with |x - mean| <= width sqrt(-2 ln threshold) stay, the origin, and what is between.

        Raises:
            FloatingPointError: if the mask is not finite, as after a training that diverged.
        """
        if self.mask is None or self.config.threshold == 0:
            return tuple((0, taps - 1) for taps in self.grid)
        masks, window = self.mask.tolist(), []
        if not all(math.isfinite(number) for pair in masks for number in pair):
            raise FloatingPointError(
                f"mean and width of the mask are {masks}; lower the learning rate, and start again "
                "from the last checkpoint"
            )
        reach = math.sqrt(-2 * math.log(self.config.threshold))
        for (mean, width), taps, origin in zip(masks, self.grid, self.origins, strict=True):
            half = (taps - 1) / 2
            first = math.ceil((mean - reach * abs(width) + 1) * half)
            last = math.floor((mean + reach * abs(width) + 1) * half)
            window.append((min(max(first, 0), origin), max(min(last, taps - 1), origin)))
        return tuple(window)

    @property
    def effective_size(self) -> tuple[int, ...]:
        """Size of the cropped kernel on each axis."""
        return tuple(last - first + 1 for first, last in self.window)

    def sample(self) -> Tensor:
        """Return the cropped and masked kernel, `(c_out, c_in / groups, *effective_size)`."""
        return self._sample(self.window)

    def _sample(self, window: tuple[tuple[int, int], ...]) -> Tensor:
        like = self.network.out_bias
        coordinates = [
            torch.arange(first, last + 1, device=like.device, dtype=like.dtype) * (2 / (taps - 1))
            - 1
            for (first, last), taps in zip(window, self.grid, strict=True)
        ]
        points = torch.cartesian_prod(*coordinates).view(-1, len(coordinates))
        # Half precision could not resolve the phases of the filters' waves.
        with torch.autocast(like.device.type, enabled=False):
            values = self.gain * self.network(points)
            if self.mask is not None:
                distance = (points - self.mask[:, 0]) / self.mask[:, 1]
                values = values * torch.exp(-0.5 * distance.square().sum(1))[:, None]
        sizes = [len(c) for c in coordinates]
        return values.T.reshape(self.c_out, self.c_in // self.groups, *sizes)

    def _padding(self, window: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
        """Return the zeros before and after the input for each axis; negative ones crop it."""
        return [
            (before + origin - first, after + last - origin)
            for (before, after), origin, (first, last) in zip(
                self.margins, self.origins, window, strict=True
            )
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Convolve with the current kernel."""
        window = self.window
        return self.apply_kernel(images, self._sample(window), self._padding(window))

    def apply_kernel(
        self, images: Tensor, kernel: Tensor, padding: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Convolve with a kernel, directly or by Fourier transform, as the config says."""
        taps, limit = math.prod(kernel.shape[2:]), self.config.fft_taps
        by_fft = limit is not None and taps >= limit
        if not by_fft and all(before == after >= 0 for before, after in padding):
            return CONVOLVE[len(padding)](
                images,
                kernel,
                self.bias,
                stride=self.stride,
                padding=tuple(before for before, _ in padding),
                groups=self.groups,
            )
        images = F.pad(images, flat_padding(padding))
        if not by_fft:
            return CONVOLVE[len(padding)](
                images, kernel, self.bias, stride=self.stride, groups=self.groups
            )
        outputs = fft_conv(images, kernel, stride=self.stride, groups=self.groups)
        if self.bias is None:
            return outputs
        return outputs + self.bias.to(outputs.dtype).view(-1, *[1] * len(padding))

    @torch.no_grad()
    def to_conv(self) -> nn.Module:
        """Return a plain convolution with the current kernel.

        One `nn.Conv1d` or `nn.Conv2d`, after a module that pads with zeros if the window is not
        symmetric.
        """
        window = self.window
        kernel, padding = self._sample(window), self._padding(window)
        plain = all(before == after >= 0 for before, after in padding)
        axes = len(padding)
        conv = nn.utils.skip_init(
            PLAIN[axes],
            self.c_in,
            self.c_out,
            kernel.shape[2:],
            stride=self.stride,
            padding=tuple(before for before, _ in padding) if plain else 0,
            groups=self.groups,
            bias=self.bias is not None,
            device=kernel.device,
            dtype=kernel.dtype,
        )
        conv.weight.copy_(kernel)
        if self.bias is not None:
            conv.bias.copy_(self.bias)
        return conv if plain else nn.Sequential(ZERO_PAD[axes](flat_padding(padding)), conv)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: object
    ) -> None:
        # Until effconv-models 0.4 the kernel's network was named after MAGNet.
        old = f"{prefix}magnet."
        for name in [name for name in state_dict if name.startswith(old)]:
            state_dict[f"{prefix}network.{name.removeprefix(old)}"] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        """Return the layer's settings, with the current size of its kernel."""
        grid, size = ("x".join(map(str, numbers)) for numbers in (self.grid, self.effective_size))
        return f"{self.c_in}, {self.c_out}, grid={grid}, effective_size={size}"


def _network(
    config: FlexConvConfig,
    axes: int,
    outputs: int,
    mean: float,
    generator: torch.Generator | None,
) -> MAGNet | SIREN:
    """Build the network that generates a kernel whose mask starts at a mean."""
    sizes = {"hidden": config.hidden, "layers": config.layers, "generator": generator}
    if config.kernel == "siren":
        return SIREN(axes, outputs, omega_0=config.omega_0, **sizes)
    return MAGNet(
        axes,
        outputs,
        input_scale=config.input_scale,
        # The authors' code uses 0 for the causal form too, where the filters then hardly reach the
        # mask.
        centre=mean if config.masked else 0.0,
        spread=min(1.0, SPREAD * config.mask_width) if config.masked else 1.0,
        isotropic=config.kernel == "gabor",
        **sizes,
    )


def flat_padding(padding: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Convert padding by axis to torch's flat form, the last axis first."""
    return tuple(number for pair in reversed(padding) for number in pair)


def _for_each_axis(what: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(numbers) != axes:
        raise ValueError(f"{what} is {value!r}; pass one number, or one for each of {axes} axes")
    return tuple(check_positive(what, number) for number in numbers)


def flexconvs(model: nn.Module) -> dict[str, FlexConv]:
    """Return the FlexConv layers of a model by name.

    Raises:
        ValueError: if there is none.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, FlexConv)}
    if not layers:
        raise ValueError(
            f"the {type(model).__name__} has no FlexConv layer; pass a FlexNet, or what "
            "with_flexconv gave"
        )
    return layers


def mask_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return means and widths of the masks, which the paper trains at a tenth of the rate.

    Layers without a mask have none.

    Raises:
        ValueError: if the model has no FlexConv layer.
    """
    return [layer.mask for layer in flexconvs(model).values() if layer.mask is not None]


def anti_aliasing(model: nn.Module, *, standard_deviations: float = 2.0) -> Tensor:
    """Return the penalty, a scalar, on kernel frequencies that their grids cannot represent.

    A grid of n taps holds (n - 1) / 4 cycles in a unit. Each Gabor filter has an equal share of
    that, and so have the mask's own frequencies. The penalty is the sum over layers and
    filters of the squared excess of the highest frequency (FlexConv, Section 3.3 and the authors'
    code, which weighs it by 0.1). A network trained with it can be run on a finer grid.

    Args:
        model: a network with FlexConv layers.
        standard_deviations: half-width of the part of a Gaussian's spectrum that counts.

    Raises:
        ValueError: if the model has no FlexConv layer, or one with a SIREN, whose frequencies are
            not known.
    """
    total = 0.0
    for name, layer in flexconvs(model).items():
        if isinstance(layer.network, SIREN):
            raise ValueError(
                f"layer {name!r} has a SIREN, whose frequencies are not known; leave the penalty "
                "out or set kernel to 'magnet' or 'gabor'"
            )
        highest = layer.network.frequencies(standard_deviations)
        mask = 0.0
        if layer.mask is not None:
            mask = standard_deviations / (2 * math.pi * layer.mask[:, 1].abs())
        limit = (highest.new_tensor(layer.grid) - 1) / 4
        excess = highest + (mask - limit) / len(highest)
        total = total + excess.amax(1).relu().square().sum()
    return total
