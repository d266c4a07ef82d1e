"""Networks of FlexConvs with other kernel networks, as the papers' tables compare them.

Romero et al. 2022, https://arxiv.org/abs/2110.08059, Table 3: CKCNN is FlexNet with SIRENs and
without masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from effconv_models.flexconv.conv import FlexConvConfig
from effconv_models.flexconv.convert import with_flexconv
from effconv_models.flexconv.flexnet import FlexNet, FlexNetOptions, covering_grid, flexnet16
from effconv_models.registry import register_model
from effconv_models.resnet import CifarResNet

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "cifar_resnet44_ckconv",
    "cifar_resnet44_flexconv",
    "ckcnn16",
    "ckcnn_magnet16",
    "flexnet_gabor16",
]

register = partial(register_model, takes="image_size")


def _variant(options: FlexNetOptions, **changes: object) -> FlexNet:
    """Build a FlexNet-16 with changed settings of its FlexConvs."""
    config = options.get("config") or FlexConvConfig()
    return flexnet16(**{**options, "config": replace(config, **changes)})


@register
def flexnet_gabor16(**options: Unpack[FlexNetOptions]) -> FlexNet:
    """FlexNet-16 with isotropic Gabor filters, 0.67 M parameters."""
    return _variant(options, kernel="gabor")


@register
def ckcnn16(**options: Unpack[FlexNetOptions]) -> FlexNet:
    """CKCNN-16: kernels of SIRENs, as large as the image, without masks; 0.63 M parameters."""
    return _variant(options, kernel="siren", masked=False)


@register
def ckcnn_magnet16(**options: Unpack[FlexNetOptions]) -> FlexNet:
    """CKCNN-16 with MAGNets in place of the SIRENs, 0.67 M parameters."""
    return _variant(options, masked=False)


@register
def cifar_resnet44_flexconv(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int | Sequence[int] = 32,
    generator: torch.Generator | None = None,
) -> CifarResNet:
    """ResNet-44 for CIFAR in which all 3x3 convolutions are FlexConvs, 2.58 M parameters.

    Strides stay, and each grid is as large as its layer's input.
    """
    model = CifarResNet(44, num_classes=num_classes, in_channels=in_channels, generator=generator)
    height, width = image_size if isinstance(image_size, Sequence) else (image_size, image_size)
    example = torch.zeros(1, in_channels, height, width)
    return with_flexconv(model, example, chosen="*conv?", generator=generator)


@register
def cifar_resnet44_ckconv(
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int | Sequence[int] = 32,
    generator: torch.Generator | None = None,
) -> CifarResNet:
    """ResNet-44 for CIFAR whose 3x3 kernels come from MAGNets without masks, 2.58 M parameters.

    The size of the images has no effect.
    """
    covering_grid(image_size)
    model = CifarResNet(44, num_classes=num_classes, in_channels=in_channels, generator=generator)
    config = FlexConvConfig(masked=False)
    return with_flexconv(model, grid=3, chosen="*conv?", config=config, generator=generator)
