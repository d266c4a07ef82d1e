"""Argument checks that both operators share; each raises one message."""

import operator as operators
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LIMIT = 65_536  # timesteps of a layer: a kernel of 256 x 256


def uncast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors as float32 under autocast, which casts only some of them.

    Dtypes other than bfloat16 and float16 are left to the checks.
    """
    short = (torch.bfloat16, torch.float16)
    return tuple(
        tensor.float()
        if isinstance(tensor, Tensor)
        and tensor.dtype in short
        and tensor.device.type != "meta"  # which PyTorch cannot query about autocast
        and torch.is_autocast_enabled(tensor.device.type)
        else tensor
        for tensor in tensors
    )


def check_tensors(operator: str, tensors: dict[str, tuple[Tensor, str]]) -> None:
    """Check dimensions, dtype and device of tensors, given as name: (tensor, `"(L, 3H)"`)."""
    first_name, (first, _) = next(iter(tensors.items()))
    for name, (tensor, shape) in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{operator}: {name} is a {type(tensor).__name__}; pass a torch.Tensor instead"
            )
        if tensor.dim() != shape.rstrip(",)").count(",") + 1:
            raise ValueError(
                f"{operator}: {name} has shape {tuple(tensor.shape)}; it must be {shape}, so pass "
                "that, and for a batch of calls use torch.vmap"
            )
        check_dtype(operator, f"{name} has dtype", tensor.dtype)
        if tensor.dtype != first.dtype or tensor.device != first.device:
            raise ValueError(
                f"{operator}: {name} is {tensor.dtype} on {tensor.device}, {first_name} is "
                f"{first.dtype} on {first.device}; all must agree, so convert one of them"
            )
    if not torch.compiler.is_compiling() and any(
        map(_has_tangent, (t for t, _ in tensors.values()))
    ):
        raise NotImplementedError(
            f"{operator}: an argument has a tangent, and there are no forward-mode derivatives, "
            "which torch.func.jvp and jacfwd take; use torch.autograd.grad"
        )


def _has_tangent(tensor: Tensor) -> bool:
    # Otherwise PyTorch would silently drop the tangent of a custom operator.
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def check_dtype(operator: str, subject: str, dtype: torch.dtype) -> None:
    """Check that the operators support a dtype."""
    if dtype not in DTYPES:
        raise ValueError(
            f"{operator}: {subject} {dtype!r}; it must be a floating-point dtype of 16 bits or "
            "more, so pass torch.float32, torch.float64, torch.bfloat16 or torch.float16"
        )


def check_shape(
    operator: str, name: str, tensor: Tensor, shape: str, expected: tuple[int, ...]
) -> None:
    """Check that a tensor has the expected shape, which `shape` spells in letters."""
    if tuple(tensor.shape) != expected:
        raise ValueError(
            f"{operator}: {name} has shape {tuple(tensor.shape)}; it must be {shape}, which by the "
            f"other arguments is {expected}, so pass that, or change those"
        )


def counts_of(
    operator: str, name: str, counts: Iterable[int] | Tensor, layers: int, limit: int | None = None
) -> list[int]:
    """Return one integer for each layer as a list, from 1 to `limit`."""
    if isinstance(counts, Tensor):
        whole = not (
            counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool
        )
        if counts.dim() != 1 or not whole:
            raise ValueError(
                f"{operator}: {name} is a {counts.dtype} tensor of shape {tuple(counts.shape)}; "
                f"it must have one integer for each of the {layers} layers, so pass that"
            )
        counts = counts.tolist()
    if isinstance(counts, int | float):
        raise ValueError(
            f"{operator}: {name} is {counts}; it must have one integer for each of the {layers} "
            "layers, so pass a sequence"
        )
    if not isinstance(counts, Iterable):
        raise TypeError(
            f"{operator}: {name} is a {type(counts).__name__}; pass a sequence of integers"
        )
    found = [_integer(operator, f"{name}[{layer}]", count) for layer, count in enumerate(counts)]
    if len(found) != layers:
        raise ValueError(
            f"{operator}: {name} has length {len(found)} for {layers} layers; "
            "pass one entry for each layer"
        )
    for layer, count in enumerate(found):
        if count < 1:
            raise ValueError(
                f"{operator}: {name}[{layer}] is {count}; it must be at least 1, "
                "so leave out a layer that has none"
            )
        if limit is not None and count > limit:
            raise ValueError(
                f"{operator}: {name}[{layer}] is {count}; it may be at most {limit:,}, "
                "so pass a smaller one"
            )
    return found


def _integer(operator: str, name: str, count: object) -> int:
    # torch.compile traces an int without its value, which can only be checked for its type;
    # NumPy's integers are not int, but are converted.
    if isinstance(count, int) and not isinstance(count, bool):
        return count
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(
            f"{operator}: {name} is {count!r}, a {type(count).__name__}; "
            "pass integers of at least 1"
        )
    return operators.index(count)
