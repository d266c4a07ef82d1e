"""Networks whose filter sizes are learned as a mixture of resolutions, and plain baselines.

Convolutional Neural Networks without Pooling or Fixed Filter Sizes, anonymous WACV submission 832.
A network of D layers is D - 1 blocks and a classifier: so read, the paper's parameter counts (0.3,
0.9 and 1.5 M) and its ratios of cost between networks come out. Images keep their size throughout.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from effconv_models._validation import check_positive
from effconv_models.kernel_sizes import KernelSizes, sizes_by_name
from effconv_models.layers import linear
from effconv_models.multi_resolution.layer import MBConv6, MultiResolution, conv_block
from effconv_models.registry import ModelOptions, register_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "MultiResolutionNet",
    "multi_resolution8_128",
    "multi_resolution10_16",
    "multi_resolution10_32",
    "multi_resolution10_64",
    "multi_resolution10_128",
    "multi_resolution20_64",
    "multi_resolution_mbconv8_128",
    "pooled_cnn",
    "predefined_resolutions",
]

BlockKind = Literal["conv", "mbconv6"]


class MultiResolutionNet(nn.Module):
    """Multi-resolution layers and a classifier, `(B, in_channels, H, W)` to `(B, num_classes)`.

    Args:
        layers: D of the paper: D - 1 blocks and the classifier.
        channels: channels of each block.
        resolutions: R; blocks run at sides of H, H / 2, ... H / 2**(R - 1). Not in the paper: its
            ratios of cost need 3 or more, and its predefined network pools every two to three
            layers, which 4 gives.
        block: `"conv"` is convolution, ReLU, batch norm; `"mbconv6"` is EfficientNet's block
            everywhere except first.
        learned: whether mixing weights are learned; False is the scale invariant baseline.
        learned_depth: whether the classifier sees the mixture of all blocks' outputs (Eq. 6)
            instead of the last one's.
        num_classes: number of logits.
        in_channels: channels of the images.
        kernel_sizes: of `layers.0.block.conv` to `layers.{D - 2}.block.conv`, see `create_model`.
        generator: source of the initial values, on the model's device; None uses the global one.

    Attributes:
        exits: positions of the blocks whose outputs the classifier sees.
        exit_mixing: the logits of their weights; None if only the last is used.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is not allowed or the block is unknown.

    Examples:
        >>> network = MultiResolutionNet(10, 16, learned_depth=True)
        >>> network(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> [layer.resolutions for layer in network.layers][0]
        (0, 1, 2, 3)
    """

    def __init__(
        self,
        layers: int = 10,
        channels: int = 64,
        *,
        resolutions: int = 4,
        block: BlockKind = "conv",
        learned: bool = True,
        learned_depth: bool = False,
        num_classes: int = 10,
        in_channels: int = 3,
        kernel_sizes: KernelSizes = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive("num_classes", num_classes)
        exponents = range(check_positive("resolutions", resolutions))
        blocks = _blocks(layers, channels, block, in_channels, kernel_sizes, generator)
        self.layers = nn.ModuleList(
            MultiResolution(made, exponents, learned=learned) for made in blocks
        )
        self.exits = tuple(range(len(blocks)) if learned_depth else [len(blocks) - 1])
        self.exit_mixing = nn.Parameter(torch.zeros(len(blocks))) if learned_depth else None
        self.fc = linear(channels, num_classes, generator=generator)

    def exit_weights(self) -> Tensor:
        """Return beta, the weights of the exits: positive, with sum 1."""
        if self.exit_mixing is None:
            return self.fc.weight.new_ones(1)
        return self.exit_mixing.softmax(0)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        exits = dict(zip(self.exits, self.exit_weights(), strict=True))
        features, seen = images, 0
        for position, layer in enumerate(self.layers):
            features = layer(features)
            if position in exits:
                # Eq. 6; the mean over pixels may be taken before the sum.
                seen = seen + exits[position] * features.mean((2, 3))
        return self.fc(seen)


def pooled_cnn(
    resolutions: Sequence[int],
    channels: int = 64,
    *,
    block: BlockKind = "conv",
    num_classes: int = 10,
    in_channels: int = 3,
    kernel_sizes: KernelSizes = 3,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Build a plain CNN of blocks with one resolution each: the baselines without mixing.

    Between two blocks the features are pooled where the resolution falls, and enlarged where it
    rises. All 0 is the paper's network without pooling; `predefined_resolutions(10)` the one with.

    Args:
        resolutions: exponent r of each of the D - 1 blocks, which has sides of H / 2**r.
        channels: channels of each block.
        block: see `MultiResolutionNet`.
        num_classes: number of logits.
        in_channels: channels of the images.
        kernel_sizes: as of a `MultiResolutionNet`.
        generator: source of the initial values, on the model's device; None uses the global one.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is not allowed or the block is unknown.

    Examples:
        >>> predefined_resolutions(10)
        [0, 0, 0, 1, 1, 2, 2, 3, 3]
        >>> cnn = pooled_cnn(predefined_resolutions(10), 16)
        >>> cnn(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    check_positive("num_classes", num_classes)
    if not all(type(r) is int and r >= 0 for r in resolutions):
        raise ValueError(
            f"resolutions are {list(resolutions)}; pass one integer of at least 0 for each block"
        )
    blocks = _blocks(len(resolutions) + 1, channels, block, in_channels, kernel_sizes, generator)
    classifier = linear(channels, num_classes, generator=generator)
    return chain(blocks, resolutions, classifier, smooth=False)


def predefined_resolutions(layers: int = 10, resolutions: int = 4) -> list[int]:
    """Return the rule of thumb: R resolutions from fine to coarse, over D - 1 blocks evenly.

    At the defaults the resolution falls after three blocks, then after every second.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if a number is below 1, or there are fewer blocks than resolutions.
    """
    blocks = check_positive("layers", layers) - 1
    if blocks < check_positive("resolutions", resolutions):
        raise ValueError(
            f"{resolutions} resolutions need as many blocks, and {layers} layers have {blocks}; "
            "raise layers"
        )
    return [position * resolutions // blocks for position in range(blocks)]


def chain(
    blocks: Sequence[nn.Module], resolutions: Sequence[int], classifier: nn.Linear, *, smooth: bool
) -> nn.Sequential:
    """Chain blocks of one resolution each and a classifier, in `torch.nn` classes.

    Args:
        blocks: the blocks; used without a copy.
        resolutions: exponent r of each.
        classifier: classifier of the channels' means.
        smooth: whether features between two blocks are enlarged to the image's size and pooled
            again as in Eq. 4, which blurs them a little; else a constant resolution is kept.
    """
    layers, before = [], 0
    for block, resolution in zip(blocks, resolutions, strict=True):
        parts = OrderedDict(_between(before, resolution, smooth), block=block)
        layers.append(nn.Sequential(parts))
        before = resolution
    # Enlarging keeps the mean over pixels, so the classifier needs none.
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": classifier}
    return nn.Sequential(OrderedDict(layers=nn.Sequential(*layers), **head))


def _between(before: int, after: int, smooth: bool) -> dict[str, nn.Module]:
    """Return the modules that convert features from one resolution to the next."""
    if after < before:
        # Interpolation is linear between coarse centres, so pooling what was enlarged further
        # would give the same.
        return {"up": _upsample(2 ** (before - after))}
    if smooth and before:
        # Enlarging by 2**before and pooling by 2**after is the same as this smaller detour: within
        # each pooled square two samples have the mean of any larger number.
        return {"up": _upsample(2), "down": _pool(2 ** (after - before + 1))}
    return {"down": _pool(2 ** (after - before))} if after > before else {}


def _upsample(factor: int) -> nn.Upsample:
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)


def _pool(factor: int) -> nn.AvgPool2d:
    return nn.AvgPool2d(factor, ceil_mode=True, count_include_pad=False)


def _blocks(
    layers: int,
    channels: int,
    block: str,
    in_channels: int,
    kernel_sizes: KernelSizes,
    generator: torch.Generator | None,
) -> list[nn.Module]:
    """Build the D - 1 blocks of a network."""
    check_positive("channels", channels)
    check_positive("in_channels", in_channels)
    if check_positive("layers", layers) < 2:
        raise ValueError(f"layers is {layers}; one is the classifier, so pass 2 or more")
    if block not in ("conv", "mbconv6"):
        raise ValueError(f"block is {block!r}; pass 'conv' or 'mbconv6'")
    names = [f"layers.{position}.block.conv" for position in range(layers - 1)]
    first, *others = sizes_by_name(kernel_sizes, names).values()
    make = partial(conv_block, channels) if block == "conv" else MBConv6
    blocks: list[nn.Module] = [conv_block(in_channels, channels, first, generator=generator)]
    return blocks + [make(channels, size, generator=generator) for size in others]


@register_model
def multi_resolution10_16(**options: Unpack[ModelOptions]) -> MultiResolutionNet:
    """Ten layers of 16 channels, 0.02 M parameters."""
    return MultiResolutionNet(10, 16, **options)


@register_model
def multi_resolution10_32(**options: Unpack[ModelOptions]) -> MultiResolutionNet:
    """Ten layers of 32 channels, 0.08 M parameters."""
    return MultiResolutionNet(10, 32, **options)


@register_model
def multi_resolution10_64(**options: Unpack[ModelOptions]) -> MultiResolutionNet:
    """Ten layers of 64 channels, 0.3 M parameters: the paper's network."""
    return MultiResolutionNet(10, 64, **options)


@register_model
def multi_resolution10_128(**options: Unpack[ModelOptions]) -> MultiResolutionNet:
    """Ten layers of 128 channels, 1.2 M parameters."""
    return MultiResolutionNet(10, 128, **options)


@register_model
def multi_resolution20_64(**options: Unpack[ModelOptions]) -> MultiResolutionNet:
    """Twenty layers of 64 channels, 0.7 M parameters."""
    return MultiResolutionNet(20, 64, **options)


@register_model
def multi_resolution8_128(**options: Unpack[ModelOptions]) -> MultiResolutionNet:
    """Eight layers of 128 channels, 0.9 M parameters."""
    return MultiResolutionNet(8, 128, **options)


@register_model
def multi_resolution_mbconv8_128(**options: Unpack[ModelOptions]) -> MultiResolutionNet:
    """Eight layers of 128 channels, MBConv6 except for the first, 1.5 M parameters."""
    return MultiResolutionNet(8, 128, block="mbconv6", **options)
