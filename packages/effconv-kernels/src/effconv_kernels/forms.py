"""Which form of an operator runs on which tensors."""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from effconv_kernels import cpu

STREAMED = 512
"""The largest hidden size whose timesteps a Triton program runs in one launch. Above, reading the
recurrent weights is all the cost, and one matrix product a timestep reads them as fast."""


@cache
def _triton(operator: str) -> ModuleType | None:
    if find_spec("triton") is None:
        return None
    return import_module(f"effconv_kernels.triton.{operator}")


def form_of(operator: str, tensor: Tensor, hidden_size: int) -> ModuleType:
    """Give the module whose functions run an operator: Triton's, or batched PyTorch.

    Args:
        operator: `"gru"` or `"assemble"`.
        tensor: one of the operator's arguments; float64 and CPU tensors take PyTorch.
        hidden_size: H.
    """
    fits = tensor.is_cuda and tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if not fits or (operator == "gru" and hidden_size > STREAMED):
        return cpu
    return _triton(operator) or cpu
