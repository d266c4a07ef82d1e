"""The multi-resolution convolution: one block at several resolutions, mixed by learned weights.

Convolutional Neural Networks without Pooling or Fixed Filter Sizes, anonymous WACV submission 832,
Sections 3.1 to 3.3 and 4.1. Where it is silent: pooling is by the average, upsampling is bilinear,
and each resolution has its own batch statistics, because pooled features vary less, so that those
of one resolution still hold when the others are pruned.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv_models._validation import check_positive
from effconv_models.layers import linear, same_conv

__all__ = ["MBConv6", "MultiResolution", "conv_block", "downsample", "upsample"]


def downsample(features: Tensor, resolution: int) -> Tensor:
    """Average squares of `2**resolution` pixels (S of Eq. 4).

    `(B, C, H, W)` becomes `(B, C, ceil(H / 2**r), ceil(W / 2**r))`; a square that reaches over the
    border averages the pixels that it has.
    """
    if resolution == 0:
        return features
    return F.avg_pool2d(features, 2**resolution, ceil_mode=True, count_include_pad=False)


def upsample(features: Tensor, resolution: int, size: tuple[int, int]) -> Tensor:
    """Interpolate by `2**resolution` bilinearly (U of Eq. 4) and cut to `size`, (H, W).

    The centre of a coarse pixel stays the centre of its square, in images of odd size too.
    """
    if resolution == 0:
        return features
    grown = F.interpolate(
        features, scale_factor=2.0**resolution, mode="bilinear", align_corners=False
    )
    return grown[..., : size[0], : size[1]]


class ResolutionNorm(nn.Module):
    """Batch norm with statistics for each of R resolutions, and one shared scale and shift.

    A scale for each resolution would be a second mixing weight.

    Args:
        norm: the initial batch norm.
        resolutions: R.

    Attributes:
        position: index of the resolution whose statistics a call uses and, in training, updates.
    """

    def __init__(self, norm: nn.BatchNorm2d, resolutions: int) -> None:
        super().__init__()
        if not norm.affine or not norm.track_running_stats or norm.momentum is None:
            raise ValueError(
                f"the block's {norm} lacks scale, running statistics or momentum; pass a block "
                "whose batch norms have all three, as they have by default"
            )
        self.weight, self.bias = norm.weight, norm.bias
        self.eps, self.momentum, self.position = norm.eps, norm.momentum, 0
        self.register_buffer("running_mean", norm.running_mean.repeat(resolutions, 1))
        self.register_buffer("running_var", norm.running_var.repeat(resolutions, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise `(B, C, H, W)`."""
        return F.batch_norm(
            features,
            self.running_mean[self.position],
            self.running_var[self.position],
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )

    def keep(self, positions: Sequence[int]) -> None:
        """Drop the statistics of all resolutions except these."""
        self.running_mean = self.running_mean[list(positions)]
        self.running_var = self.running_var[list(positions)]
        self.position = 0

    def at(self, position: int) -> nn.BatchNorm2d:
        """Return the ordinary batch norm of one resolution, as a copy."""
        norm = nn.BatchNorm2d(len(self.weight), self.eps, self.momentum).to(self.weight)
        values = {"weight": self.weight, "bias": self.bias}
        values |= {n: getattr(self, n)[position] for n in ("running_mean", "running_var")}
        norm.load_state_dict(values, strict=False)
        return norm.train(self.training)


class MultiResolution(nn.Module):
    """A block at several resolutions, with the same weights, mixed at the finest (Eq. 4, 5).

    `(B, c_in, H, W)` becomes `(B, c_out, H, W)`, the sum over r of
    `alpha_r * upsample(block(downsample(images, r)), r)`.

    Args:
        block: maps `(B, c_in, h, w)` to `(B, c_out, h, w)` for any h and w. Used without a copy:
            its batch norms get statistics for each resolution.
        resolutions: the exponents r, ascending; a resolution has sides of H / 2**r.
        learned: whether the mixing weights are learned; else they stay equal.

    Attributes:
        mixing: `(R,)`, the logits of the weights, initially 0: a parameter, or a buffer if they
            are not learned.

    Raises:
        ValueError: if the resolutions are not ascending integers of at least 0.

    Examples:
        >>> layer = MultiResolution(conv_block(3, 8), (0, 1, 2))
        >>> layer(torch.zeros(2, 3, 15, 15)).shape
        torch.Size([2, 8, 15, 15])
        >>> layer.weights().tolist()
        [0.3333333432674408, 0.3333333432674408, 0.3333333432674408]
    """

    def __init__(
        self, block: nn.Module, resolutions: Sequence[int], *, learned: bool = True
    ) -> None:
        super().__init__()
        resolutions = tuple(resolutions)
        whole = all(type(r) is int and r >= 0 for r in resolutions)
        if not resolutions or not whole or list(resolutions) != sorted(set(resolutions)):
            raise ValueError(
                f"resolutions are {resolutions}; pass ascending integers from 0, such as (0, 1, 2)"
            )
        self.resolutions = resolutions
        self.block = _swap(
            block,
            nn.BatchNorm2d,
            lambda norm: ResolutionNorm(norm, len(resolutions)),
        )
        mixing = torch.zeros(len(resolutions))
        if learned:
            self.mixing = nn.Parameter(mixing)
        else:
            self.register_buffer("mixing", mixing)

    def weights(self) -> Tensor:
        """Return alpha, `(R,)`: positive, with sum 1."""
        return self.mixing.softmax(0)

    def forward(self, images: Tensor) -> Tensor:
        """Convolve at each resolution and mix."""
        weights, size = self.weights(), images.shape[-2:]
        norms = self._norms()
        output: Tensor | None = None
        for position, resolution in enumerate(self.resolutions):
            for norm in norms:
                norm.position = position
            coarse = downsample(images, resolution)
            features = self.block(coarse)
            if features.shape[-2:] != coarse.shape[-2:]:
                raise ValueError(
                    f"the block made {tuple(features.shape[-2:])} pixels of "
                    f"{tuple(coarse.shape[-2:])}; pass one that keeps the size"
                )
            # Weighted before it is enlarged, where there are fewer pixels.
            part = upsample(weights[position] * features, resolution, size)
            output = part if output is None else output + part
        return output

    def keep(self, positions: Sequence[int]) -> None:
        """Drop all resolutions except those at given positions, in place; Eq. 5 runs over these."""
        positions = sorted(positions)
        for norm in self._norms():
            norm.keep(positions)
        self.resolutions = tuple(self.resolutions[position] for position in positions)
        kept = self.mixing.detach()[positions].clone()
        self.mixing = nn.Parameter(kept) if isinstance(self.mixing, nn.Parameter) else kept

    def block_at(self, position: int) -> nn.Module:
        """Return the ordinary block of one resolution, as a copy."""
        return _swap(
            copy.deepcopy(self.block),
            ResolutionNorm,
            lambda norm: norm.at(position),
        )

    def extra_repr(self) -> str:
        """Return the resolutions."""
        return f"resolutions={self.resolutions}"

    def _norms(self) -> list[ResolutionNorm]:
        return [module for module in self.block.modules() if isinstance(module, ResolutionNorm)]


def conv_block(
    c_in: int, c_out: int, kernel_size: int = 3, *, generator: torch.Generator | None = None
) -> nn.Sequential:
    """Build the paper's block: convolution, ReLU, batch norm, in this order.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        kernel_size: height and width of the kernel.
        generator: source of the initial values; None uses the global one.
    """
    conv = same_conv(c_in, c_out, kernel_size, generator=generator)
    return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU(), norm=nn.BatchNorm2d(c_out)))


class MBConv6(nn.Module):
    """EfficientNet's block of expansion 6 with squeeze and excitation, `(B, C, h, w)` to the same.

    Tan and Le (2019, https://arxiv.org/abs/1905.11946): 1x1 to 6C, depthwise, channels weighted by
    a bottleneck of C / 4, 1x1 to C, batch norm after each convolution, and the input added.

    Args:
        channels: C.
        kernel_size: size of the depthwise convolution.
        generator: source of the initial values; None uses the global one.
    """

    def __init__(
        self, channels: int, kernel_size: int = 3, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        wide, narrow = 6 * check_positive("channels", channels), max(1, channels // 4)
        self.expand = same_conv(channels, wide, 1, generator=generator)
        self.expand_norm = nn.BatchNorm2d(wide)
        self.conv = same_conv(wide, wide, kernel_size, groups=wide, generator=generator)
        self.conv_norm = nn.BatchNorm2d(wide)
        self.excitation = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            linear(wide, narrow, generator=generator),
            nn.SiLU(),
            linear(narrow, wide, generator=generator),
            nn.Sigmoid(),
            nn.Unflatten(1, (wide, 1, 1)),
        )
        self.project = same_conv(wide, channels, 1, generator=generator)
        self.project_norm = nn.BatchNorm2d(channels)
        self.silu = nn.SiLU()

    def forward(self, images: Tensor) -> Tensor:
        """Add the block's output to its input."""
        features = self.silu(self.expand_norm(self.expand(images)))
        features = self.silu(self.conv_norm(self.conv(features)))
        features = features * self.excitation(features)
        return images + self.project_norm(self.project(features))


def _swap(
    module: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """Replace each module of a kind by `make(child)`, in place; return the module."""
    if isinstance(module, kind):
        return make(module)
    for name, child in module.named_children():
        setattr(module, name, _swap(child, kind, make))
    return module
