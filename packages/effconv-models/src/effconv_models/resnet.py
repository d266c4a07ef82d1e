"""ResNets of He et al., Deep Residual Learning for Image Recognition (2016).

https://arxiv.org/abs/1512.03385. `CifarResNet` is the family of Section 4.2 for small images,
`ResNet18` the smallest of Table 1 for ImageNet. Modules are named as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable
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
    "CifarResNet",
    "ResNet18",
    "cifar_resnet20",
    "cifar_resnet26",
    "cifar_resnet32",
    "cifar_resnet38",
    "cifar_resnet44",
    "cifar_resnet50",
    "cifar_resnet56",
    "cifar_resnet110",
    "resnet18",
]

Shortcut = Callable[[int, int, int, torch.Generator | None], nn.Module]


def zero_padded_shortcut(
    c_in: int, c_out: int, stride: int, generator: torch.Generator | None
) -> nn.Module:
    """Build the shortcut of option A: strided pixels, zero channels appended; no parameters."""
    # On `(B, C, H, W)` the third dimension that ZeroPad3d pads is the channels.
    return nn.Sequential(nn.AvgPool2d(1, stride), nn.ZeroPad3d((0, 0, 0, 0, 0, c_out - c_in)))


def projection_shortcut(
    c_in: int, c_out: int, stride: int, generator: torch.Generator | None
) -> nn.Module:
    """Build the shortcut of option B: a 1x1 convolution and batch norm."""
    return nn.Sequential(
        same_conv(c_in, c_out, 1, stride, generator=generator), nn.BatchNorm2d(c_out)
    )


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, `(B, c_in, H, W)` to `(B, c_out, H / stride, W / stride)`.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        stride: stride of the first convolution and the shortcut.
        sizes: kernel sizes of the two convolutions.
        shortcut: builds the shortcut if the block changes the shape.
        generator: source of the initial values; None uses the global one.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        stride: int,
        sizes: tuple[int, int],
        *,
        shortcut: Shortcut,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.conv1 = same_conv(c_in, c_out, sizes[0], stride, generator=generator)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = same_conv(c_out, c_out, sizes[1], generator=generator)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        changes_shape = stride != 1 or c_in != c_out
        self.downsample = (
            shortcut(c_in, c_out, stride, generator) if changes_shape else nn.Identity()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        residual = self.relu(self.bn1(self.conv1(images)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + self.downsample(images))


class CifarResNet(nn.Module):
    """ResNet for small images, `(B, in_channels, H, W)` to logits `(B, num_classes)`.

    Three stages of 16, 32 and 64 channels with parameter-free shortcuts (He et al., Section 4.2).

    Args:
        depth: number of weighted layers, 6n + 2.
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
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        kernel_sizes: KernelSizes = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive("num_classes", num_classes)
        check_positive("in_channels", in_channels)
        if check_positive("depth", depth) < 8 or depth % 6 != 2:
            raise ValueError(f"depth is {depth}; depths are 6n + 2, so pass one of 8, 14, 20, ...")
        sizes = stage_sizes(kernel_sizes, stages=3, blocks=(depth - 2) // 6)
        block = partial(BasicBlock, shortcut=zero_padded_shortcut, generator=generator)
        self.conv1 = same_conv(in_channels, 16, 3, generator=generator)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = make_stage(block, 16, 16, 1, sizes[0])
        self.layer2 = make_stage(block, 16, 32, 2, sizes[1])
        self.layer3 = make_stage(block, 32, 64, 2, sizes[2])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = linear(64, num_classes, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.fc(self.avgpool(features).flatten(1))


class ResNet18(nn.Module):
    """ResNet-18 for ImageNet, `(B, in_channels, H, W)` to logits `(B, num_classes)`.

    Four stages of 64 to 512 channels with 1x1 projections as shortcuts (He et al., Table 1). With
    all kernel sizes at 3, weights match those of torchvision's `resnet18` by name.

    Args:
        num_classes: number of logits.
        in_channels: channels of the images.
        kernel_sizes: of the 16 convolutions inside blocks, see `create_model`.
        generator: source of the initial values, on the model's device; None uses the global one.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is not allowed.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        kernel_sizes: KernelSizes = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive("num_classes", num_classes)
        check_positive("in_channels", in_channels)
        sizes = stage_sizes(kernel_sizes, stages=4, blocks=2)
        block = partial(BasicBlock, shortcut=projection_shortcut, generator=generator)
        self.conv1 = same_conv(in_channels, 64, 7, 2, generator=generator)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = make_stage(block, 64, 64, 1, sizes[0])
        self.layer2 = make_stage(block, 64, 128, 2, sizes[1])
        self.layer3 = make_stage(block, 128, 256, 2, sizes[2])
        self.layer4 = make_stage(block, 256, 512, 2, sizes[3])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = linear(512, num_classes, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(self.avgpool(features).flatten(1))


@register_model
def cifar_resnet20(**options: Unpack[ModelOptions]) -> CifarResNet:
    """ResNet-20 for CIFAR, 0.27 M parameters."""
    return CifarResNet(20, **options)


@register_model
def cifar_resnet26(**options: Unpack[ModelOptions]) -> CifarResNet:
    """ResNet-26 for CIFAR, 0.37 M parameters."""
    return CifarResNet(26, **options)


@register_model
def cifar_resnet32(**options: Unpack[ModelOptions]) -> CifarResNet:
    """ResNet-32 for CIFAR, 0.46 M parameters."""
    return CifarResNet(32, **options)


@register_model
def cifar_resnet38(**options: Unpack[ModelOptions]) -> CifarResNet:
    """ResNet-38 for CIFAR, 0.56 M parameters."""
    return CifarResNet(38, **options)


@register_model
def cifar_resnet44(**options: Unpack[ModelOptions]) -> CifarResNet:
    """ResNet-44 for CIFAR, 0.66 M parameters."""
    return CifarResNet(44, **options)


@register_model
def cifar_resnet50(**options: Unpack[ModelOptions]) -> CifarResNet:
    """ResNet-50 for CIFAR, 0.76 M parameters."""
    return CifarResNet(50, **options)


@register_model
def cifar_resnet56(**options: Unpack[ModelOptions]) -> CifarResNet:
    """ResNet-56 for CIFAR, 0.85 M parameters."""
    return CifarResNet(56, **options)


@register_model
def cifar_resnet110(**options: Unpack[ModelOptions]) -> CifarResNet:
    """ResNet-110 for CIFAR, 1.7 M parameters."""
    return CifarResNet(110, **options)


@register_model
def resnet18(**options: Unpack[ModelOptions]) -> ResNet18:
    """ResNet-18 for ImageNet, 11.7 M parameters at 1000 classes."""
    return ResNet18(**options)
