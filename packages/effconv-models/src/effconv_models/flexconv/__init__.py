"""Convolutions that learn their kernel size, and networks of them (FlexConv, FlexNet)."""

from effconv_models.flexconv.conv import (
    FlexConv,
    FlexConvConfig,
    anti_aliasing,
    flexconvs,
    mask_parameters,
)

__all__ = ["FlexConv", "FlexConvConfig", "anti_aliasing", "flexconvs", "mask_parameters"]
