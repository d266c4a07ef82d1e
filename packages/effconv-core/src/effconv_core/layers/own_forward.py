"""Convolutions that are more than `torch.nn`'s own, on kernels of other sizes.

The forward of a subclass, or of a transposed convolution, is run as it is, on the attributes that
the layer would have with the kernel. Whether it then gives the output size of the original is
tried, on tensors that have no values; so are parametrizations.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from effconv_core.layers.copying import copy_network
from effconv_core.layers.geometry import centred, kernel_shape_of, transposed
from effconv_core.layers.parametrized import (
    kernel_name,
    kernel_tensor,
    parametrization_of,
    through,
)
from effconv_core.rng import kept_generators

CLASSES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
METHODS = ("forward", "_conv_forward")
CALLS = ("__call__", "_call_impl")
TRIED = (12, 13)
"""Lengths of the inputs that are tried beyond the largest kernel's reach."""


def plain_class(kind: type[nn.Module]) -> type[nn.Module] | None:
    """Return the class of `torch.nn` that a class of convolutions is derived from, if any."""
    plain = (*CLASSES.values(), *TRANSPOSED.values())
    return next((own for own in plain if issubclass(kind, own)), None)


def own_forward(kind: type[nn.Module]) -> bool:
    """Return whether a class convolves in another way than `nn.Conv1d`, `Conv2d` and `Conv3d`."""
    plain = plain_class(kind)
    if plain in TRANSPOSED.values():
        return True
    return any(getattr(kind, m) is not getattr(plain, m) for m in METHODS)


def run_with_kernel(
    conv: Any, kernel: Tensor, *args: Any, geometry: dict[str, Any] | None = None, **kwargs: Any
) -> Tensor:
    """Run the forward of a layer's own class as if it had another kernel.

    Args:
        conv: the original, or the layer that replaced it.
        kernel: in the layout of the layer's weight, such as `(c_out, c_in / groups, *taps)`.
        *args: those of the forward: `(B, c_in, *space)`, and a transposed layer's `output_size`.
        geometry: of the layer with this kernel; None is that of the layer that is built.
        **kwargs: arguments of the forward by name.
    """
    kind = _kind(conv)
    geometry = geometry_of(conv, kernel.shape[2:]) if geometry is None else geometry
    found = object.__new__(kind)
    parameters = {n: p for n, p in conv._parameters.items() if n != "weight"}
    vars(found).update({**vars(conv), **geometry, "_parameters": parameters, "weight": kernel})
    return kind.forward(found, *args, **kwargs)


def geometry_of(conv: Any, kernel_shape: Sequence[int]) -> dict[str, Any]:
    """Return what a layer with another kernel has in place of the original's, by attribute.

    That is `centred`, but for a layer whose own forward pads by itself, as those of "same" padding
    do: it keeps its padding.

    Args:
        conv: the original, or the layer that replaced it.
        kernel_shape: taps of the new kernel, one number for each axis.
    """
    if conv.transposed:
        return transposed(conv, kernel_shape)
    if conv.pads_itself if hasattr(conv, "pads_itself") else pads_itself(conv):
        return _uncentred(conv, kernel_shape)
    return centred(conv, kernel_shape)


def pads_itself(conv: nn.Module) -> bool:
    """Return whether a layer's own forward keeps its output size by padding that it computes."""
    if not own_forward(type(conv)) or conv.transposed:
        return False
    other = kernel_shape_of(conv, max(conv.kernel_size) + 2)
    return _keeps_size(conv, [other], _uncentred) is None


def size_obstacle(conv: nn.Module, sizes: Sequence[int | tuple[int, ...]]) -> str | None:
    """Return why a layer cannot have some sizes, None if it can have all.

    Args:
        conv: any convolution.
        sizes: as in a plan.
    """
    if not own_forward(type(conv)) and parametrization_of(conv) is None:
        return None
    shapes = [kernel_shape_of(conv, size) for size in sizes]
    if conv.transposed:
        for size, shape in zip(sizes, shapes, strict=True):
            if transposed(conv, shape) is None:
                return f"has no padding that keeps the size of its output at a size of {size}"
    return _keeps_size(conv, shapes, geometry_of)


def _uncentred(conv: Any, kernel_shape: Sequence[int]) -> dict[str, Any]:
    names = ("padding", "padding_mode", "_reversed_padding_repeated_twice")
    kept = {name: getattr(conv, name) for name in names}
    return {"kernel_size": tuple(kernel_shape), **kept}


def _keeps_size(
    conv: nn.Module,
    kernel_shapes: Sequence[tuple[int, ...]],
    geometry: Callable[[Any, Sequence[int]], dict[str, Any]],
) -> str | None:
    """Return the first reason for which outputs have another size, or None."""
    kind, parts = type(conv), parametrization_of(conv)
    what = "forward" if parts is None else "parametrization"
    try:
        with torch.enable_grad(), kept_generators(torch.device("cpu")):
            probe = copy_network(conv).to("meta").requires_grad_(False)
            tensor = kernel_tensor(probe)
            longest = [max(taps) for taps in zip(conv.kernel_size, *kernel_shapes, strict=True)]
            for more in TRIED:
                pairs = zip(longest, conv.dilation, strict=True)
                lengths = [2 * dilation * taps + more for taps, dilation in pairs]
                images = tensor.new_empty(2, conv.in_channels, *lengths)
                wanted = kind.forward(copy_network(probe), images).shape
                for shape in kernel_shapes:
                    kernel = weight = tensor.new_empty(*tensor.shape[:2], *shape)
                    kernel.requires_grad_()
                    if parts is not None:
                        parts = parametrization_of(copy_network(probe))
                        weight = through(parts, kernel_name(conv), kernel)
                    size = "x".join(map(str, shape))
                    if weight.shape != kernel.shape:
                        return f"has a parametrization that gives another shape at a size of {size}"
                    given = run_with_kernel(probe, weight, images, geometry=geometry(conv, shape))
                    if not given.requires_grad:
                        return f"has a {what} that does not use its weight"
                    if given.shape != wanted:
                        return f"has a {what} that gives another output size at a size of {size}"
    except Exception as error:
        return f"has a {what} that does not run at another size ({type(error).__name__})"
    return None


def _kind(conv: Any) -> type[nn.Module]:
    return getattr(conv, "kind", None) or type_before_parametrizations(conv)
