"""Residual networks whose kernel sizes are parameters, or learned as they train."""

from effconv_models.flexconv import (
    FlexConv,
    FlexConvConfig,
    anti_aliasing,
    effective_sizes,
    mask_parameters,
)
from effconv_models.flexnet import FlexNet, flexnet3, flexnet5, flexnet7, flexnet16
from effconv_models.kernel_sizes import KernelSizes, block_kernel_sizes
from effconv_models.layers import same_conv
from effconv_models.plug import left_alone, refine, to_plain, with_flexconv
from effconv_models.registry import create_model, list_models, register_model
from effconv_models.resnet import CifarResNet, ResNet18
from effconv_models.wide_resnet import WideResNet

__version__ = "0.2.0"

__all__ = [
    "CifarResNet",
    "FlexConv",
    "FlexConvConfig",
    "FlexNet",
    "KernelSizes",
    "ResNet18",
    "WideResNet",
    "anti_aliasing",
    "block_kernel_sizes",
    "create_model",
    "effective_sizes",
    "flexnet3",
    "flexnet5",
    "flexnet7",
    "flexnet16",
    "left_alone",
    "list_models",
    "mask_parameters",
    "refine",
    "register_model",
    "same_conv",
    "to_plain",
    "with_flexconv",
]
