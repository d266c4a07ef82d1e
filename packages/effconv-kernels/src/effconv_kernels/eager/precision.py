"""The precision of sums."""

import torch
from torch import Tensor


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return contiguous tensors in float32 or wider, as used for sums."""
    return tuple(
        tensor.to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()
        for tensor in tensors
    )
