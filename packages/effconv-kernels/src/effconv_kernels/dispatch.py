"""Which form of an operator runs on which tensors."""

from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor

from effconv_kernels import eager

STREAMED = 512
"""The largest hidden size whose timesteps a Triton program runs in one launch. Above, reading the
recurrent weights is all the cost, and one matrix product a timestep reads them as fast."""


@cache
def _triton(operator: str, device: torch.device) -> ModuleType | None:
    # The programs were written for NVIDIA's warps; AMD's GPUs answer to "cuda" too.
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (7, 0):
        return None
    try:
        return import_module(f"effconv_kernels.triton.{operator}")
    except ImportError:
        return None


def form_of(operator: str, tensor: Tensor, hidden_size: int) -> ModuleType:
    """Give the module whose functions run an operator: Triton's, or batched PyTorch.

    Args:
        operator: `"gru"` or `"assemble"`.
        tensor: one of the operator's arguments; float64 and CPU tensors take PyTorch.
        hidden_size: H.
    """
    fits = tensor.is_cuda and tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if not fits or (operator == "gru" and hidden_size > STREAMED):
        return eager
    return _triton(operator, tensor.device) or eager
