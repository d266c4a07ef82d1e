"""Small tables of integers on the device, which programs look up."""

import torch
from torch import Tensor

_captured: dict[int, Tensor] = {}


def on_device(rows: list, device: torch.device) -> Tensor:
    """Copy integers to a device without waiting for it."""
    table = torch.tensor(rows, dtype=torch.int64)
    if device.type == "cuda":
        table = table.pin_memory().to(device, non_blocking=True)
    return table


def keep(table: Tensor) -> Tensor:
    """Keep a table for good if a CUDA graph is being captured, which holds its bare address."""
    if table.is_cuda and torch.cuda.is_current_stream_capturing():
        _captured[table.data_ptr()] = table
    return table
