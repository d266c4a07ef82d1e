"""Dispatch of operators to Triton or batched PyTorch."""

import os
import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from effconv_kernels import eager

STREAMED = 512
"""The largest hidden size at which a Triton program runs all timesteps in one launch. Above it,
reading the recurrent weights dominates, and one matrix product per timestep is as fast."""

BACKENDS = ("auto", "triton", "torch")
VARIABLE = "EFFCONV_KERNELS_BACKEND"
"""Environment variable that stands in for `backend="auto"`."""


def backend_of(operator: str, backend: str) -> str:
    """Return the backend asked for: the argument, or the environment's where that is "auto".

    Raises:
        ValueError: if either is not one of `BACKENDS`.
    """
    if backend not in BACKENDS:
        raise ValueError(f"{operator}: backend is {backend!r}; pass 'auto', 'triton' or 'torch'")
    if backend != "auto":
        return backend
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted not in BACKENDS:
        raise ValueError(
            f"{operator}: the environment has {VARIABLE}={wanted!r}; set it to auto, triton or "
            "torch, or unset it"
        )
    return wanted


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _triton(operator: str, device: torch.device) -> ModuleType | None:
    """Return the module of an operator's Triton programs, or None if they do not run there."""
    # The kernels were written for NVIDIA's warps; AMD's GPUs are "cuda" devices too.
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (7, 0):
        return None
    try:
        module = import_module(f"effconv_kernels.triton.{operator}")
    except ImportError:
        return None
    try:
        module.try_out(device)
    except Exception as error:  # a compiler, a driver or a version of Triton: it may be anything
        warnings.warn(
            f"Triton's programs of {operator} do not run on {device} ({type(error).__name__}: "
            f"{error}); batched PyTorch runs in their place, as with {VARIABLE}=torch",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return module


def form_of(
    operator: str, tensor: Tensor, hidden_size: int, backend: str = "auto", known: bool = True
) -> ModuleType:
    """Return the module that implements an operator: Triton's, or batched PyTorch.

    Args:
        operator: `"gru"` or `"assemble"`.
        tensor: one of the operator's arguments; float64 and CPU tensors use PyTorch.
        hidden_size: H.
        backend: one of `BACKENDS`.
        known: whether the Triton programs know all arguments of the call.

    Raises:
        ValueError: if the backend is "triton", and its programs cannot run this call.
    """
    backend = backend_of(operator, backend)
    if backend == "torch":
        return eager
    here = tensor.is_cuda or (backend == "triton" and _interpreted())
    short = tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if here and short and known and (operator != "gru" or hidden_size <= STREAMED):
        if not tensor.is_cuda:
            return import_module(f"effconv_kernels.triton.{operator}")
        form = _triton(operator, tensor.device)
        if form is not None:
            return form
    if backend == "triton":
        raise ValueError(
            f"{operator}: backend is 'triton', whose programs take {tensor.dtype} tensors on "
            f"{tensor.device} with H = {hidden_size} and these arguments not, or do not run here; "
            "pass backend='auto' or 'torch'"
        )
    return eager
