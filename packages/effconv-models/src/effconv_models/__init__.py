"""Networks whose kernel sizes are parameters, or are learned as they train."""

import effconv_models.flexconv.variants  # noqa: F401  # registers its networks
from effconv_models.effective_sizes import effective_sizes
from effconv_models.flexconv.conv import FlexConv, FlexConvConfig, anti_aliasing, mask_parameters
from effconv_models.flexconv.convert import left_alone, to_plain, with_flexconv
from effconv_models.flexconv.flexnet import FlexNet, flexnet3, flexnet5, flexnet7, flexnet16
from effconv_models.flexconv.flextcn import FlexTCN, flextcn2, flextcn4, flextcn6, flextcn7
from effconv_models.flexconv.resolution import refine, resolution_errors
from effconv_models.kernel_sizes import KernelSizes, block_kernel_sizes
from effconv_models.layers import same_conv
from effconv_models.multi_resolution.analysis import (
    best_resolutions,
    learned_depth,
    mixing_parameters,
    mixing_weights,
    multiply_accumulates,
    one_resolution,
    prune,
)
from effconv_models.multi_resolution.layer import MBConv6, MultiResolution, conv_block
from effconv_models.multi_resolution.network import (
    MultiResolutionNet,
    pooled_cnn,
    predefined_resolutions,
)
from effconv_models.njet import NJetConv, with_njet
from effconv_models.registry import create_model, list_models, register_model
from effconv_models.resnet import CifarResNet, ResNet18
from effconv_models.resnet1d import ResNet1d
from effconv_models.wide_resnet import WideResNet

__version__ = "0.5.0"

__all__ = [
    "CifarResNet",
    "FlexConv",
    "FlexConvConfig",
    "FlexNet",
    "FlexTCN",
    "KernelSizes",
    "MBConv6",
    "MultiResolution",
    "MultiResolutionNet",
    "NJetConv",
    "ResNet1d",
    "ResNet18",
    "WideResNet",
    "anti_aliasing",
    "best_resolutions",
    "block_kernel_sizes",
    "conv_block",
    "create_model",
    "effective_sizes",
    "flexnet3",
    "flexnet5",
    "flexnet7",
    "flexnet16",
    "flextcn2",
    "flextcn4",
    "flextcn6",
    "flextcn7",
    "learned_depth",
    "left_alone",
    "list_models",
    "mask_parameters",
    "mixing_parameters",
    "mixing_weights",
    "multiply_accumulates",
    "one_resolution",
    "pooled_cnn",
    "predefined_resolutions",
    "prune",
    "refine",
    "register_model",
    "resolution_errors",
    "same_conv",
    "to_plain",
    "with_flexconv",
    "with_njet",
]
