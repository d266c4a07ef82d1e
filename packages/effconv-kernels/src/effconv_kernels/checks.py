"""Argument checks that both operators share; each raises one sentence."""

from collections.abc import Sequence

import torch
from torch import Tensor


def uncast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Give the arguments as float32 under autocast, which makes some of them short and not others.

    Anything else is left to the checks.
    """
    short = (torch.bfloat16, torch.float16)
    return tuple(
        tensor.float()
        if isinstance(tensor, Tensor)
        and tensor.dtype in short
        and torch.is_autocast_enabled(tensor.device.type)
        else tensor
        for tensor in tensors
    )


def check_tensors(operator: str, tensors: dict[str, tuple[Tensor, int]]) -> None:
    """Check rank, floating dtype and device of every tensor, given as name: (tensor, rank)."""
    first_name, (first, _) = next(iter(tensors.items()))
    for name, (tensor, rank) in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{operator}: {name} is a {type(tensor).__name__}; pass a torch.Tensor instead"
            )
        if tensor.dim() != rank:
            raise ValueError(
                f"{operator}: {name} has shape {tuple(tensor.shape)}; "
                f"it must have {rank} dimension(s), so reshape it"
            )
        if not tensor.is_floating_point():
            raise ValueError(
                f"{operator}: {name} has dtype {tensor.dtype}; "
                "it must be a floating-point dtype, so convert it"
            )
        if tensor.dtype != first.dtype or tensor.device != first.device:
            raise ValueError(
                f"{operator}: {name} is {tensor.dtype} on {tensor.device}, {first_name} is "
                f"{first.dtype} on {first.device}; all must agree, so convert one of them"
            )


def check_shape(operator: str, name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    """Check that a tensor has exactly the expected shape."""
    if tuple(tensor.shape) != expected:
        raise ValueError(
            f"{operator}: {name} has shape {tuple(tensor.shape)}; "
            f"the other arguments ask for {expected}, so pass that shape"
        )


def check_counts(operator: str, name: str, counts: Sequence[int], layers: int) -> None:
    """Check that there is one integer of at least 1 for each layer."""
    if len(counts) != layers:
        raise ValueError(
            f"{operator}: {name} has {len(counts)} entries for {layers} layers; "
            "pass one for each layer"
        )
    for layer, count in enumerate(counts):
        if isinstance(count, bool) or not hasattr(count, "__index__"):
            raise TypeError(
                f"{operator}: {name}[{layer}] is {count!r}, a {type(count).__name__}; "
                "pass integers of at least 1"
            )
        if count < 1:
            raise ValueError(
                f"{operator}: {name}[{layer}] is {count}; it must be at least 1, "
                "so leave out a layer that has none"
            )
