"""Wide ResNets of Zagoruyko and Komodakis, Wide Residual Networks (2016).

https://arxiv.org/abs/1605.07146, Table 1: pre-activation blocks of two convolutions, no dropout.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from effconv_models._validation import check_positive
from effconv_models.kernel_sizes import KernelSizes, stage_sizes
from effconv_models.layers import linear, make_stage, same_conv
from effconv_models.registry import ModelOptions, register_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "WideResNet",
    "wide_resnet16_4",
    "wide_resnet28_1",
    "wide_resnet28_10",
    "wide_resnet40_2",
]


class PreActivationBlock(nn.Module):
    """Two convolutions, each after batch norm and ReLU, and a shortcut.

    `(B, c_in, H, W)` becomes `(B, c_out, H / stride, W / stride)`. A block that changes the shape
    projects its activated input with a 1x1 kernel.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        stride: stride of the first convolution and the shortcut.
        sizes: kernel sizes of the two convolutions.
        generator: source of the initial values; None uses the global one.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        sizes: tuple[int, int],
        *,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = same_conv(c_in, c_out, sizes[0], stride, generator=generator)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = same_conv(c_out, c_out, sizes[1], generator=generator)
        self.relu = nn.ReLU(inplace=True)
        changes_shape = stride != 1 or c_in != c_out
        self.downsample = (
            same_conv(c_in, c_out, 1, stride, generator=generator) if changes_shape else None
        )

    def forward(self, images: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        activated = self.relu(self.bn1(images))
        residual = self.conv2(self.relu(self.bn2(self.conv1(activated))))
        return residual + (images if self.downsample is None else self.downsample(activated))


class WideResNet(nn.Module):
    """Wide ResNet for small images, `(B, in_channels, H, W)` to logits `(B, num_classes)`.

    Three stages of 16, 32 and 64 times `width` channels.

    Args:
        depth: 6n + 4 convolutions: the first, 6n inside blocks and three projections; at width 1
            the first stage needs none, but the paper counts it anyway.
        width: factor on the channels of the stages.
        num_classes: number of logits.
        in_channels: channels of the images.
        kernel_sizes: of the 6n convolutions inside blocks, see `create_model`.
        generator: source of the initial values, on the model's device; None uses the global one.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is not allowed.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        kernel_sizes: KernelSizes = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive("width", width)
        check_positive("num_classes", num_classes)
        check_positive("in_channels", in_channels)
        if check_positive("depth", depth) < 10 or depth % 6 != 4:
            raise ValueError(f"depth is {depth}; depths are 6n + 4, so pass one of 10, 16, 22, ...")
        sizes = stage_sizes(kernel_sizes, stages=3, blocks=(depth - 4) // 6)
        block = partial(PreActivationBlock, generator=generator)
        self.conv1 = same_conv(in_channels, 16, 3, generator=generator)
        self.layer1 = make_stage(block, 16, 16 * width, 1, sizes[0])
        self.layer2 = make_stage(block, 16 * width, 32 * width, 2, sizes[1])
        self.layer3 = make_stage(block, 32 * width, 64 * width, 2, sizes[2])
        self.bn = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = linear(64 * width, num_classes, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        features = self.relu(self.bn(features))
        return self.fc(self.avgpool(features).flatten(1))


@register_model
def wide_resnet16_4(**options: Unpack[ModelOptions]) -> WideResNet:
    """WRN-16-4, 2.7 M parameters."""
    return WideResNet(16, 4, **options)


@register_model
def wide_resnet28_1(**options: Unpack[ModelOptions]) -> WideResNet:
    """WRN-28-1, 0.37 M parameters."""
    return WideResNet(28, 1, **options)


@register_model
def wide_resnet28_10(**options: Unpack[ModelOptions]) -> WideResNet:
    """WRN-28-10, 36.5 M parameters."""
    return WideResNet(28, 10, **options)


@register_model
def wide_resnet40_2(**options: Unpack[ModelOptions]) -> WideResNet:
    """WRN-40-2, 2.2 M parameters."""
    return WideResNet(40, 2, **options)
