"""ResNet and Wide-ResNet families whose kernel sizes are parameters."""

from effconv_models.kernel_sizes import KernelSizes, block_kernel_sizes
from effconv_models.layers import same_conv
from effconv_models.registry import create_model, list_models, register_model
from effconv_models.resnet import CifarResNet, ResNet18
from effconv_models.wide_resnet import WideResNet

__version__ = "0.1.0"

__all__ = [
    "CifarResNet",
    "KernelSizes",
    "ResNet18",
    "WideResNet",
    "block_kernel_sizes",
    "create_model",
    "list_models",
    "register_model",
    "same_conv",
]
