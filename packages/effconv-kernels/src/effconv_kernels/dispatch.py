"""Dispatch of operators to Triton or batched PyTorch."""

from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from effconv_kernels import eager

STREAMED = 512
"""The largest hidden size at which a Triton program runs all timesteps in one launch. Above it,
reading the recurrent weights dominates, and one matrix product per timestep is as fast."""


@cache
def _triton(operator: str, device: torch.device) -> ModuleType | None:
    # The kernels were written for NVIDIA's warps; AMD's GPUs are "cuda" devices too.
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (7, 0):
        return None
    try:
        return import_module(f"effconv_kernels.triton.{operator}")
    except ImportError:
        return None


def form_of(operator: str, tensor: Tensor, hidden_size: int) -> ModuleType:
    """Return the module that implements an operator: Triton's, or batched PyTorch.

    Args:
        operator: `"gru"` or `"assemble"`.
        tensor: one of the operator's arguments; float64 and CPU tensors use PyTorch.
        hidden_size: H.
    """
    fits = tensor.is_cuda and tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if not fits or (operator == "gru" and hidden_size > STREAMED):
        return eager
    return _triton(operator, tensor.device) or eager
