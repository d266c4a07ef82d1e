"""One pass over anybody's loader."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def epoch_batches(
    loader: Iterable[tuple[Any, Any]], epoch: int, device: torch.device
) -> Iterator[tuple[Any, Any]]:
    """Give the batches of one epoch, with their tensors on a device.

    Args:
        loader: gives batches `(inputs, targets)`. Where it has `set_epoch`, that is called first.
        epoch: counted from 0.
        device: what is no tensor is left as it is.

    Raises:
        ValueError: if the loader gives no batch.
        TypeError: if a batch is no pair.
    """
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    empty = True
    for batch in loader:
        empty = False
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            count = f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
            raise TypeError(
                f"the loader gave a {type(batch).__name__}{count}; batches are pairs of inputs and "
                "targets, so wrap the loader, or write the loop yourself with SearchableCNN"
            )
        inputs, targets = (
            value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for value in batch
        )
        yield inputs, targets
    if empty:
        raise ValueError(
            f"the loader gave no batch in epoch {epoch + 1}; it must give at least one an "
            "epoch, so check its data set and batch size, and pass a loader, not an iterator"
        )
