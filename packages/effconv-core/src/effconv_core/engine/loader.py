"""Iteration over one epoch of any data loader."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from effconv_core.rng import seed_generators

STALL = 60.0  # seconds without a batch between warnings

logger = logging.getLogger("effconv_core")


def epoch_batches(
    loader: Iterable[tuple[Any, Any]], epoch: int, device: torch.device
) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of one epoch, with their tensors on a device.

    A loader that hangs is told of by a warning to the log, once a minute.

    Args:
        loader: gives batches `(inputs, targets)`. Where it has `set_epoch`, that is called first.
        epoch: counted from 0.
        device: what is no tensor is left as it is.

    Raises:
        ValueError: if the loader gives no batch, or one with no image.
        TypeError: if a batch is no pair.
    """
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    step = 0
    batches, wait = iter(loader), _Wait(epoch)
    try:
        while (batch := wait.next(batches, step)) is not None:
            step += 1
            if not isinstance(batch, list | tuple) or len(batch) != 2:
                count = f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
                raise TypeError(
                    f"the loader gave a {type(batch).__name__}{count}; batches are pairs of inputs "
                    "and targets, so wrap the loader, or write the loop yourself with SearchableCNN"
                )
            if isinstance(batch[0], Tensor) and batch[0].dim() and not len(batch[0]):
                raise ValueError(
                    f"batch {step} of epoch {epoch + 1} has no image; let the loader leave out "
                    "batches that are empty"
                )
            inputs, targets = (
                value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
                for value in batch
            )
            yield inputs, targets
    finally:
        wait.over.set()
    if not step:
        raise ValueError(
            f"the loader gave no batch in epoch {epoch + 1}; it must give at least one an "
            "epoch, so check its data set and batch size, and pass a loader, not an iterator"
        )


class RepeatableLoader:
    """A loader that seeds torch's global generators from the epoch before each epoch.

    So a resumed search has the same order of a DataLoader and the same draws of the network as an
    uninterrupted one. Use it within `seeded`, which restores the generators.
    """

    def __init__(self, loader: Any, seed: int, device: torch.device) -> None:
        self.loader, self.seed, self.device = loader, seed, device

    def set_epoch(self, epoch: int) -> None:
        """Seed the generators for an epoch, and tell the loader of it."""
        seed_generators(100_000 * self.seed + epoch, self.device)
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)


class _Wait:
    """Watches how long a loader takes for a batch, from its own thread."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.step = epoch, 0
        self.since: float | None = None
        self.over = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def next(self, batches: Iterator[Any], step: int) -> Any:
        """Return the next batch, None after the last."""
        self.step, self.since = step, time.monotonic()
        try:
            return next(batches, None)
        finally:
            self.since = None

    def _look(self) -> None:
        while not self.over.wait(STALL):
            since = self.since
            waited = 0.0 if since is None else time.monotonic() - since
            if waited >= STALL:
                logger.warning(
                    "the loader has given nothing for %.0f s, at batch %d of epoch %d; if it "
                    "hangs, stop the search, which goes on from its last checkpoint",
                    waited,
                    self.step + 1,
                    self.epoch + 1,
                )
