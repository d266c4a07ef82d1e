"""Convolutions whose weight `torch.nn.utils.parametrize` computes from other tensors.

One of these tensors has the weight's shape. In a search that one is predicted, and passes through
the parametrization as it does in the plain layer; the others, such as the scales of weight
normalisation, are kept and trained with the network.
"""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList


def parametrization_of(conv: nn.Module) -> ParametrizationList | None:
    """Return what computes the weight of a layer; None where nothing does."""
    parts = conv._modules.get("parametrizations")
    return parts["weight"] if isinstance(parts, nn.ModuleDict) and "weight" in parts else None


def kernel_name(conv: Any) -> str | None:
    """Return the name of the parameter that has the shape of a layer's weight.

    Returns:
        "weight", or a name among the originals of its parametrization; None where not just one
        has that shape, or the weight is no parameter.
    """
    parts = parametrization_of(conv)
    if parts is None:
        return "weight" if conv._parameters.get("weight") is not None else None
    channels = conv.out_channels, conv.in_channels
    first, second = reversed(channels) if conv.transposed else channels
    shape = (first, second // conv.groups, *conv.kernel_size)
    names = [name for name, tensor in parts._parameters.items() if tuple(tensor.shape) == shape]
    return names[0] if len(names) == 1 else None


def kernel_tensor(conv: Any) -> Tensor:
    """Return the tensor that `kernel_name` names, or a weight that is no parameter.

    The weight of a parametrized layer is not computed, which may change the layer's state.
    """
    parts, name = parametrization_of(conv), kernel_name(conv)
    return conv.weight if parts is None or name is None else parts._parameters[name]


def through(parts: ParametrizationList, name: str, kernel: Tensor) -> Tensor:
    """Return the weight that a parametrization computes of a kernel, which has the same shape.

    Args:
        parts: the parametrization.
        name: which of its originals the kernel stands for; the others are its own.
        kernel: as the layer's weight, of any size. Of a spectral norm the left singular vector is
            kept, and the right one, whose length depends on the size, follows from it.
    """
    names = ["original"] if parts.is_tensor else [f"original{n}" for n in range(parts.ntensors)]
    values = [kernel if other == name else getattr(parts, other) for other in names]
    whole = nullcontext() if kernel.is_meta else torch.autocast(kernel.device.type, enabled=False)
    with whole:
        for part in parts:
            if isinstance(part, _SpectralNorm):
                matrix = part._reshape_weight_to_matrix(values[0].detach())
                part._v = F.normalize(matrix.mH @ part._u, dim=0, eps=part.eps)
            values = [part(*values)]
    return values[0]


def without_kernel(parts: ParametrizationList, name: str) -> ParametrizationList:
    """Return a parametrization that has no tensor for the kernel, nor any that depends on its size.

    It shares what else it has with the original.
    """
    shell = _shell(parts, {n: p for n, p in parts._parameters.items() if n != name})
    for part in shell:
        if isinstance(part, _SpectralNorm):
            part._v = part._buffers.pop("_v")
    return shell


def with_kernel(parts: ParametrizationList, name: str, kernel: nn.Parameter) -> ParametrizationList:
    """Return a parametrization with another tensor for the kernel, which shares what else it has.

    Args:
        parts: that of a layer, or what `without_kernel` made of it.
        name: which of its originals is the kernel.
        kernel: becomes that original.
    """
    names = ["original"] if parts.is_tensor else [f"original{n}" for n in range(parts.ntensors)]
    shell = _shell(parts, {n: kernel if n == name else parts._parameters[n] for n in names})
    norms = [part for part in shell if isinstance(part, _SpectralNorm)]
    if norms:
        modes = [part.training for part in norms]
        for part in norms:
            part.training = False  # in which the left singular vector stays as it is
        with torch.no_grad():
            through(shell, name, kernel)
        for part, mode in zip(norms, modes, strict=True):
            part.training = mode
            part.register_buffer("_v", vars(part).pop("_v", part._buffers.get("_v")))
    return shell


def _shell(parts: ParametrizationList, parameters: Mapping[str, Any]) -> ParametrizationList:
    """Return a module like another, with other parameters and its own spectral norms."""
    modules = {
        name: copy.deepcopy(part) if isinstance(part, _SpectralNorm) else part
        for name, part in parts._modules.items()
    }
    made = object.__new__(type(parts))
    vars(made).update({**vars(parts), "_parameters": dict(parameters), "_modules": modules})
    return made
