"""A convolution whose kernel is computed for each image, from an embedding."""

from hypernetwork_layer.layer import HyperConv2d
from hypernetwork_layer.task import embed, filtered, fit, relative_error

__all__ = ["HyperConv2d", "embed", "filtered", "fit", "relative_error"]
