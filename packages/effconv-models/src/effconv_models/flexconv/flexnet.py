"""FlexNets: residual networks in which each convolution learns its size.

Romero et al. 2022, https://arxiv.org/abs/2110.08059, Section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from effconv_models._validation import check_positive
from effconv_models.flexconv.conv import FlexConv, FlexConvConfig
from effconv_models.registry import register_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FlexNet", "covering_grid", "flexnet3", "flexnet5", "flexnet7", "flexnet16"]


def covering_grid(lengths: int | Sequence[int]) -> int | tuple[int, ...]:
    """Return the smallest FlexConv grid that covers an input: odd, and at least 3."""
    if isinstance(lengths, Sequence) and not isinstance(lengths, str | bytes):
        return tuple(covering_grid(length) for length in lengths)
    return max(3, check_positive("image_size", lengths) // 2 * 2 + 1)


class FlexBlock(nn.Module):
    """Two FlexConvs and a shortcut, `(B, c_in, H, W)` to `(B, c_out, H, W)`.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        grid: grid of the kernels.
        dropout: probability, after the first ReLU.
        config: settings of the FlexConvs.
        generator: source of the initial values; None uses the global one.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        grid: int | Sequence[int],
        *,
        dropout: float,
        config: FlexConvConfig | None,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.conv1 = FlexConv(c_in, c_out, grid, config=config, generator=generator)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = FlexConv(c_out, c_out, grid, config=config, generator=generator)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if c_in != c_out:
            # Skipping torch's own initialisation leaves the global random state alone.
            self.shortcut = nn.utils.skip_init(
                nn.Conv2d, c_in, c_out, 1, device=torch.get_default_device()
            )
            bound = c_in**-0.5
            for parameter in self.shortcut.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        residual = self.dropout(self.relu(self.bn1(self.conv1(images))))
        return self.relu(self.bn2(self.conv2(residual)) + self.shortcut(images))


class FlexNet(nn.Module):
    """Residual network of FlexConvs, images `(B, in_channels, H, W)` to logits.

    There is no pooling before the end. Sizes are learned with the weights, so none are passed;
    `effective_sizes` returns them, and `to_plain` the network of plain convolutions.

    Args:
        widths: for each block its channels as a multiple of `channels`.
        channels: channels of the first convolution.
        num_classes: number of logits.
        in_channels: channels of the images.
        image_size: height and width of the images; sets the grid of the kernels. Other image sizes
            are accepted too.
        dropout: probability, in each block.
        config: of the FlexConvs; None takes the paper's.
        generator: source of the initial values, on the model's device; None uses the global one.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if a number is not allowed.
    """

    def __init__(
        self,
        widths: Sequence[float],
        *,
        channels: int = 24,
        num_classes: int = 10,
        in_channels: int = 3,
        image_size: int | Sequence[int] = 32,
        dropout: float = 0.2,
        config: FlexConvConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths is empty; pass a number for each block, such as [1, 1.5, 2]")
        check_positive("num_classes", num_classes)
        check_positive("channels", channels)
        grid = covering_grid(image_size)
        self.conv = FlexConv(in_channels, channels, grid, config=config, generator=generator)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        c_outs = [int(channels * width) for width in widths]
        self.blocks = nn.Sequential(
            *(
                FlexBlock(c_in, c_out, grid, dropout=dropout, config=config, generator=generator)
                for c_in, c_out in zip([channels, *c_outs], c_outs, strict=False)
            )
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.utils.skip_init(
            nn.Linear, c_outs[-1], num_classes, device=torch.get_default_device()
        )
        nn.init.kaiming_normal_(self.fc.weight, generator=generator)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, `(B, num_classes)`."""
        features = self.blocks(self.relu(self.bn(self.conv(images))))
        return self.fc(self.avgpool(features).flatten(1))


class FlexNetOptions(TypedDict, total=False):
    """Keyword arguments of the functions below; see `FlexNet`."""

    channels: int
    num_classes: int
    in_channels: int
    image_size: int | Sequence[int]
    dropout: float
    config: FlexConvConfig | None
    generator: torch.Generator | None


@partial(register_model, takes="image_size")
def flexnet3(**options: Unpack[FlexNetOptions]) -> FlexNet:
    """FlexNet of 3 blocks, 0.28 M parameters."""
    return FlexNet((1.0, 1.5, 2.0), **options)


@partial(register_model, takes="image_size")
def flexnet5(**options: Unpack[FlexNetOptions]) -> FlexNet:
    """FlexNet of 5 blocks, with 22 channels by default 0.45 M parameters."""
    return FlexNet((1.0, 1.5, 1.5, 2.0, 2.0), **{"channels": 22, **options})


@partial(register_model, takes="image_size")
def flexnet16(**options: Unpack[FlexNetOptions]) -> FlexNet:
    """FlexNet of 7 blocks, which are 16 weighted layers, 0.67 M parameters."""
    return FlexNet((1.0, 1.0, 1.5, 1.5, 1.5, 2.0, 2.0), **options)


flexnet7 = flexnet16
"""The name of the same network if blocks are counted."""
