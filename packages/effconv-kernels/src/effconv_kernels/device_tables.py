"""Small integer tables on the device, which the operators' implementations look up."""

from typing import NamedTuple

import torch
from torch import Tensor

_captured: dict[int, Tensor] = {}


class Table(NamedTuple):
    """Integers on a device and, on a GPU, the copying stream and the event of its completion."""

    values: Tensor
    stream: torch.cuda.Stream | None = None
    copied: torch.cuda.Event | None = None


@torch.inference_mode(False)  # kept for later calls, which may be outside of it
def on_device(rows: list, device: torch.device) -> Table:
    """Copy integers to a device without waiting for it."""
    values = torch.tensor(rows, dtype=torch.int64)
    if device.type != "cuda":
        return Table(values.to(device))
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "a CUDA graph is being captured with sizes that are new, and a graph cannot copy their "
            "tables; call the operator with the same sizes once before"
        )
    stream, copied = torch.cuda.current_stream(device), torch.cuda.Event()
    values = values.pin_memory().to(device, non_blocking=True)
    copied.record(stream)
    return Table(values, stream, copied)


def ready(table: Table) -> Tensor:
    """Make a table's values available to the current stream and return them."""
    values, copying, copied = table
    if copying is None:
        return values
    if torch.cuda.is_current_stream_capturing():
        # A CUDA graph holds the raw address, so the table is kept for good. It is complete:
        # capturing begins with a synchronisation.
        _captured[values.data_ptr()] = values
        return values
    stream = torch.cuda.current_stream(values.device)
    if stream != copying:
        stream.wait_event(copied)
        values.record_stream(stream)
    return values
