"""Networks whose kernel sizes are parameters, or are learned as a mixture of resolutions."""

from effconv_models.kernel_sizes import KernelSizes, block_kernel_sizes
from effconv_models.layers import same_conv
from effconv_models.mixing import (
    best_resolutions,
    effective_kernel_sizes,
    learned_depth,
    mixing_parameters,
    mixing_weights,
    multiply_accumulates,
    one_resolution,
    prune,
)
from effconv_models.multi_resolution import (
    MultiResolutionNet,
    pooled_cnn,
    predefined_resolutions,
)
from effconv_models.multi_resolution_layer import MBConv6, MultiResolution, conv_block
from effconv_models.registry import create_model, list_models, register_model
from effconv_models.resnet import CifarResNet, ResNet18
from effconv_models.wide_resnet import WideResNet

__version__ = "0.2.0"

__all__ = [
    "CifarResNet",
    "KernelSizes",
    "MBConv6",
    "MultiResolution",
    "MultiResolutionNet",
    "ResNet18",
    "WideResNet",
    "best_resolutions",
    "block_kernel_sizes",
    "conv_block",
    "create_model",
    "effective_kernel_sizes",
    "learned_depth",
    "list_models",
    "mixing_parameters",
    "mixing_weights",
    "multiply_accumulates",
    "one_resolution",
    "pooled_cnn",
    "predefined_resolutions",
    "prune",
    "register_model",
    "same_conv",
]
