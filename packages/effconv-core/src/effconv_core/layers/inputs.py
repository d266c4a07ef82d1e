"""How a network is run on what a loader gives as its inputs."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only


def run_on(network: Callable[..., Any], inputs: Any) -> Any:
    """Return the outputs of a network on inputs.

    Args:
        network: a module, or any function.
        inputs: a tuple or list holds the network's positional arguments, a mapping its keyword
            arguments; anything else is its one argument.
    """
    if isinstance(inputs, Mapping):
        return network(**inputs)
    if isinstance(inputs, tuple | list):
        return network(*inputs)
    return network(inputs)


def arguments_of(inputs: Any) -> list[Any]:
    """Return the arguments that inputs hold for a network, without their names."""
    return run_on(lambda *args, **kwargs: [*args, *kwargs.values()], inputs)


def copied(value: Any) -> Any:
    """Return a value with copies of its tensors, for a network that may change them in place."""
    return tree_map_only(Tensor, torch.clone, value)


def in_float32(outputs: Any) -> Any:
    """Return outputs of autocast with their tensors of bfloat16 in float32; others as they are."""
    return tree_map_only(Tensor, lambda t: t.float() if t.dtype == torch.bfloat16 else t, outputs)


def on_device(value: Any, device: torch.device) -> Any:
    """Return a value with its tensors on a device, also those within tuples, lists and mappings.

    Tensors that were made in inference mode, which no graph can hold, are copied.

    Args:
        value: a part of a batch.
        device: what is not a tensor is left as it is.
    """
    if isinstance(value, Mapping) and not isinstance(value, dict):
        value = dict(value)

    def moved(tensor: Tensor) -> Tensor:
        moved = tensor.to(device, non_blocking=True)
        return moved.clone() if moved.is_inference() else moved

    return tree_map_only(Tensor, moved, value)
