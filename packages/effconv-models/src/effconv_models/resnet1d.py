"""Residual networks for sequences, in the form of ResNet-18.

He et al., Deep Residual Learning for Image Recognition (2016), https://arxiv.org/abs/1512.03385,
with one axis in place of two, and narrower.
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

__all__ = ["ResNet1d", "resnet1d10", "resnet1d14"]


class BasicBlock1d(nn.Module):
    """Two convolutions and a shortcut, `(B, c_in, T)` to `(B, c_out, ceil(T / stride))`.

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
        conv = partial(same_conv, axes=1, generator=generator)
        self.conv1 = conv(c_in, c_out, sizes[0], stride)
        self.bn1 = nn.BatchNorm1d(c_out)
        self.conv2 = conv(c_out, c_out, sizes[1])
        self.bn2 = nn.BatchNorm1d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm1d(c_out))

    def forward(self, sequences: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        residual = self.relu(self.bn1(self.conv1(sequences)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + self.downsample(sequences))


class ResNet1d(nn.Module):
    """Residual network for sequences, `(B, in_channels, T)` to logits `(B, num_classes)`.

    A convolution of 7 taps and a pooling, each of stride 2, are followed by stages of blocks; a
    stage after the first halves the length and doubles the channels.

    Args:
        stages: number of stages.
        blocks: number of blocks of each, of two convolutions.
        channels: channels of the first stage.
        num_classes: number of logits.
        in_channels: channels of the sequences.
        kernel_sizes: of the convolutions inside blocks, see `create_model`.
        generator: source of the initial values, on the model's device; None uses the global one.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is not allowed.
    """

    def __init__(
        self,
        stages: int,
        blocks: int,
        *,
        channels: int = 16,
        num_classes: int = 10,
        in_channels: int = 1,
        kernel_sizes: KernelSizes = 9,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive("stages", stages)
        check_positive("blocks", blocks)
        check_positive("channels", channels)
        check_positive("num_classes", num_classes)
        check_positive("in_channels", in_channels)
        sizes = stage_sizes(kernel_sizes, stages=stages, blocks=blocks)
        block = partial(BasicBlock1d, generator=generator)
        self.conv1 = same_conv(in_channels, channels, 7, 2, axes=1, generator=generator)
        self.bn1 = nn.BatchNorm1d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool1d(3, stride=2, padding=1)
        for stage, pairs in enumerate(sizes):
            c_in, c_out = channels << max(stage - 1, 0), channels << stage
            stride = 1 if stage == 0 else 2
            self.add_module(f"layer{stage + 1}", make_stage(block, c_in, c_out, stride, pairs))
        self.stages = stages
        self.avgpool = nn.AdaptiveAvgPool1d(1)
        self.fc = linear(channels << (stages - 1), num_classes, generator=generator)

    def forward(self, sequences: Tensor) -> Tensor:
        """Return the logits."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(sequences))))
        for stage in range(1, self.stages + 1):
            features = getattr(self, f"layer{stage}")(features)
        return self.fc(self.avgpool(features).flatten(1))


@register_model
def resnet1d10(**options: Unpack[ModelOptions]) -> ResNet1d:
    """ResNet for sequences of 4 stages and 8 convolutions in blocks."""
    return ResNet1d(4, 1, **options)


@register_model
def resnet1d14(**options: Unpack[ModelOptions]) -> ResNet1d:
    """ResNet for sequences of 3 stages and 12 convolutions in blocks."""
    return ResNet1d(3, 2, **options)
