"""FlexTCNs: causal residual networks for sequences in which each convolution learns its size.

Romero et al. 2022, https://arxiv.org/abs/2110.08059, Section 4.1, with the blocks of Bai et al.
2018, https://arxiv.org/abs/1803.01271, as in the authors' code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from effconv_models._validation import check_positive
from effconv_models.flexconv.conv import FlexConv, FlexConvConfig
from effconv_models.flexconv.flexnet import covering_grid
from effconv_models.registry import register_model

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FlexTCN", "flextcn2", "flextcn4", "flextcn6", "flextcn7"]


class FlexTCNBlock(nn.Module):
    """Two causal FlexConvs and a shortcut, `(B, c_in, T)` to `(B, c_out, T)`.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        grid: taps of the uncropped kernels.
        dropout: probability, after each ReLU of the residual.
        config: settings of the FlexConvs.
        generator: source of the initial values; None uses the global one.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        grid: int,
        *,
        dropout: float,
        config: FlexConvConfig | None,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        options = {"axes": 1, "causal": True, "config": config, "generator": generator}
        self.conv1 = FlexConv(c_in, c_out, grid, **options)
        self.bn1 = nn.BatchNorm1d(c_out)
        self.conv2 = FlexConv(c_out, c_out, grid, **options)
        self.bn2 = nn.BatchNorm1d(c_out)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.shortcut: nn.Module = nn.Identity()
        if c_in != c_out:
            # Skipping torch's own initialisation leaves the global random state alone.
            self.shortcut = nn.utils.skip_init(
                nn.Conv1d, c_in, c_out, 1, device=torch.get_default_device()
            )
            nn.init.kaiming_normal_(self.shortcut.weight, generator=generator)
            nn.init.zeros_(self.shortcut.bias)

    def forward(self, sequences: Tensor) -> Tensor:
        """Add the residual to the shortcut."""
        residual = self.dropout(self.relu(self.bn1(self.conv1(sequences))))
        residual = self.dropout(self.relu(self.bn2(self.conv2(residual))))
        return self.relu(residual + self.shortcut(sequences))


class FlexTCN(nn.Module):
    """Causal residual network, sequences `(B, in_channels, T)` to logits `(B, num_classes)`.

    The logits are read from the last step, which has seen all of the sequence. Sizes are learned
    with the weights, so none are passed; `effective_sizes` returns them, and `to_plain` the network
    of plain convolutions.

    Args:
        blocks: number of blocks, of two FlexConvs each.
        length: T of the sequences; sets the grid of the kernels. Other lengths are accepted too.
        channels: channels of all blocks.
        num_classes: number of logits.
        in_channels: channels of the sequences.
        dropout: probability, in each block.
        config: of the FlexConvs; None takes the paper's.
        generator: source of the initial values, on the model's device; None uses the global one.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if a number is not allowed.
    """

    def __init__(
        self,
        blocks: int,
        *,
        length: int = 784,
        channels: int = 30,
        num_classes: int = 10,
        in_channels: int = 1,
        dropout: float = 0.1,
        config: FlexConvConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_positive("blocks", blocks)
        check_positive("num_classes", num_classes)
        check_positive("channels", channels)
        grid = covering_grid(length)
        options = {"dropout": dropout, "config": config, "generator": generator}
        self.blocks = nn.Sequential(
            *(
                FlexTCNBlock(in_channels if i == 0 else channels, channels, grid, **options)
                for i in range(blocks)
            )
        )
        self.fc = nn.utils.skip_init(
            nn.Linear, channels, num_classes, device=torch.get_default_device()
        )
        nn.init.normal_(self.fc.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.fc.bias)

    def forward(self, sequences: Tensor) -> Tensor:
        """Return the logits, `(B, num_classes)`."""
        return self.fc(self.blocks(sequences)[:, :, -1])


class FlexTCNOptions(TypedDict, total=False):
    """Keyword arguments of the functions below; see `FlexTCN`."""

    length: int
    channels: int
    num_classes: int
    in_channels: int
    dropout: float
    config: FlexConvConfig | None
    generator: torch.Generator | None


@partial(register_model, takes="length")
def flextcn2(**options: Unpack[FlexTCNOptions]) -> FlexTCN:
    """FlexTCN of 2 blocks, 0.11 M parameters."""
    return FlexTCN(2, **options)


@partial(register_model, takes="length")
def flextcn4(**options: Unpack[FlexTCNOptions]) -> FlexTCN:
    """FlexTCN of 4 blocks, 0.24 M parameters."""
    return FlexTCN(4, **options)


@partial(register_model, takes="length")
def flextcn6(**options: Unpack[FlexTCNOptions]) -> FlexTCN:
    """FlexTCN of 6 blocks, 0.37 M parameters (0.38 M for 3 input channels)."""
    return FlexTCN(6, **options)


@partial(register_model, takes="length")
def flextcn7(**options: Unpack[FlexTCNOptions]) -> FlexTCN:
    """FlexTCN of 7 blocks, 0.44 M parameters.

    The 0.67 M that are published of this name belong to the network for images, `flexnet7`.
    """
    return FlexTCN(7, **options)
