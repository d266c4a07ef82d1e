"""Iteration over one epoch of any data loader."""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset

from effconv_core.layers.batch_checks import check_one_sample
from effconv_core.layers.inputs import arguments_of, on_device
from effconv_core.layers.loader_parts import seed_orders, set_epoch
from effconv_core.rng import kept_generators, seed_generators

STALL = 60.0  # seconds without a batch between warnings
MOST_READ = 1000  # batches of an iterator that are read to see whether it starts again
END = object()
ONCE = {"builtins", "itertools", "torch.utils.data.dataloader"}
"""Modules whose iterators do not start again: of generators, `zip`, `cycle`, a DataLoader's."""
logger = logging.getLogger("effconv_core")


def epoch_batches(
    loader: Iterable[tuple[Any, Any]], epoch: int, device: torch.device
) -> Iterator[tuple[Any, Any]]:
    """Yield the batches of one epoch, with their tensors on a device.

    A loader that hangs is told of by a warning to the log, once a minute.

    Args:
        loader: gives batches, see `as_pair`. `set_epoch` of the loader, its samplers and its data
            set, where there is one, is called first.
        epoch: counted from 0.
        device: what is not a tensor is left as it is.

    Raises:
        ValueError: if the loader gives no batch, or one with no image.
        TypeError: if a batch is not a pair, or there is None in place of one or of its inputs.
    """
    set_epoch(loader, epoch)
    step = 0
    batches, wait = iter(loader), _Wait(epoch)
    try:
        while (batch := wait.next(batches, step)) is not END:
            step += 1
            inputs, targets = as_pair(batch, f"batch {step} of epoch {epoch + 1}")
            yield on_device(inputs, device), on_device(targets, device)
    finally:
        wait.over.set()
    if not step:
        raise ValueError(
            f"the loader gave no batch in epoch {epoch + 1}; it must give at least one an "
            "epoch, so check its data set and batch size, and pass a loader, not an iterator"
        )


def as_pair(batch: Any, which: str) -> tuple[Any, Any]:
    """Return the inputs and targets of a batch.

    Args:
        batch: what a loader gave: a pair, or a mapping of the network's keyword arguments, which
            has no other targets than those among them.
        which: what the sentence calls it.

    Raises:
        TypeError: if it is none, or None stands in place of it or of its inputs.
        ValueError: if it has no image.
    """
    if isinstance(batch, Mapping):
        batch = (batch, None)
    pair = isinstance(batch, list | tuple) and len(batch) == 2
    if batch is None or (pair and batch[0] is None):
        what = "None" if batch is None else "inputs that are None"
        raise TypeError(
            f"the loader gave {what} as {which}; let its collate_fn give a batch each time, or let "
            "an __iter__ of your own leave such batches out"
        )
    if not pair:
        count = f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
        raise TypeError(
            f"the loader gave a {type(batch).__name__}{count} as {which}; batches are pairs of "
            "inputs and targets, or mappings of the network's arguments, so let its collate_fn "
            "give such, as ((images, masks), targets)"
        )
    arguments = [a for a in arguments_of(batch[0]) if isinstance(a, Tensor)]
    if any(argument.dim() and not len(argument) for argument in arguments):
        raise ValueError(f"{which} has no image; let the loader leave out batches that are empty")
    return batch[0], batch[1]


@contextmanager
def read_before(what: str) -> Iterator[None]:
    """Raise what fails while a loader is read before a run with the name of the loader.

    Args:
        what: stands before the sentence.

    Raises:
        ValueError: in place of an error of a kind that says nothing of its cause, such as those of
            the user's own code; a TypeError and a FloatingPointError stay what they are.
    """
    try:
        yield
    except (OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of any kind, since it is the user's code
        ours = type(error) in (TypeError, ValueError, FloatingPointError)
        kind = type(error) if ours else ValueError
        told = str(error) if ours else f"{type(error).__name__}: {error}"
        raise kind(f"{what} cannot be used: {told}") from error


def check_read_again(loader: Any, *, once: bool = False) -> None:
    """Raise for what is no loader, or gives its batches only once, such as a generator.

    The batches of a list are looked at all. An iterator of another kind may start again or not; one
    of at most `MOST_READ` batches is read to its end twice, to see that it does, and a warning to
    the log says so. One that is longer, or does not say how long it is, is not looked at.

    Args:
        loader: any object.
        once: whether it is read only once, so that it may be a generator.

    Raises:
        TypeError: if it is a data set, cannot be iterated or does not start again, or a batch of a
            list is not a pair.
        ValueError: if a batch of a list has no image.
    """
    loader = _wrapped(loader)
    kind = type(loader).__name__
    if not hasattr(loader, "__iter__") and (
        isinstance(loader, Dataset) or not hasattr(loader, "__getitem__")
    ):
        raise TypeError(
            f"the loader is a {kind}, and not an iterable of batches; pass an iterable, as "
            "DataLoader(data_set, batch_size) makes of a data set"
        )
    if isinstance(loader, list | tuple):
        for number, batch in enumerate(loader, 1):
            as_pair(batch, f"batch {number} of epoch 1")
    elif not once and not _starts_again(loader):
        raise TypeError(
            f"the loader is a {kind}, which gives its batches once, and they are read again in "
            "each epoch; pass what it was made of, such as a DataLoader or a list, or an object "
            "whose __iter__ starts again"
        )


def _starts_again(loader: Any) -> bool:
    if isinstance(loader, DataLoader):
        return True
    if isinstance(loader, Iterator) and type(loader).__module__ in ONCE:
        return False
    with kept_generators(torch.device("cpu")):
        batches = iter(loader)
        if batches is not loader:
            # An __iter__ that gives a generator which is kept gives that one again.
            return type(batches).__module__ not in ONCE or iter(loader) is not batches
        if not isinstance(loader, Sized) or len(loader) > MOST_READ:
            return True  # as far as is known
        logger.warning(
            "the loader is its own iterator, a %s; it is read twice before the first step, to see "
            "that it starts again",
            type(loader).__name__,
        )
        deque(batches, 0)
        return sum(1 for _ in loader) > 0


def _wrapped(loader: Any) -> Any:
    """Return the loader of a `RepeatableLoader`, any other as it is."""
    return _wrapped(loader.loader) if isinstance(loader, RepeatableLoader) else loader


def check_last_batch(model: nn.Module, loader: Any, inputs: Any) -> None:
    """Raise if a batch of an epoch will have one sample, and the network is not trained on one.

    Args:
        model: the network; not changed.
        loader: any object; of others than a list, all of whose batches are looked at, and a
            DataLoader that cuts a sampler into batches it is not known how long the last one is.
        inputs: of its first batch; others than one tensor `(B, ...)` are not looked at.

    Raises:
        ValueError: if it fails, as batch normalisation of one number for each channel does.
    """
    loader = _wrapped(loader)
    if not isinstance(inputs, Tensor) or not inputs.dim() or len(inputs) == 1:
        return
    if isinstance(loader, list | tuple):
        others = (as_pair(batch, "a batch")[0] for batch in loader)
        single = any(isinstance(o, Tensor) and o.dim() > 0 and len(o) == 1 for o in others)
    else:
        cut = loader.batch_sampler if isinstance(loader, DataLoader) else None
        if type(cut) is not BatchSampler or cut.drop_last or not isinstance(cut.sampler, Sized):
            return
        single = len(inputs) == cut.batch_size and len(cut.sampler) % cut.batch_size == 1
    if single:
        check_one_sample(model, inputs)


def batch_count(loader: Any) -> int:
    """Return the number of batches in an epoch of a loader.

    Raises:
        TypeError: if it has no length, as a generator or a DataLoader over an IterableDataset
            without `__len__`.
        ValueError: if it is below 1.
    """
    try:
        count = len(loader)
    except (TypeError, NotImplementedError) as error:
        raise TypeError(
            f"the {type(loader).__name__} has no length ({error}), and the learning rates follow "
            "from it; give it, or its data set, a __len__, its batches or samples in an epoch"
        ) from None
    if count < 1:
        raise ValueError(
            "the loader gives no batch, since its length is 0; check its data set and batch size"
        )
    return count


def known_count(loader: Any) -> int | None:
    """Return the batches in an epoch of a loader; None where there is no loader or no length."""
    try:
        return None if loader is None else batch_count(loader)
    except TypeError:
        return None


class RepeatableLoader:
    """A loader that seeds the global generators, and its own, from the epoch before each epoch.

    So a resumed run has the same order of a DataLoader and the same draws of the network as an
    uninterrupted one. Use it within `seeded`, which restores the global generators.
    """

    def __init__(self, loader: Any, seed: int, device: torch.device) -> None:
        self.loader, self.seed, self.device = loader, seed, device

    def set_epoch(self, epoch: int) -> None:
        """Seed the generators for an epoch; `set_epoch` then tells the loader of it."""
        seed = 100_000 * self.seed + epoch
        seed_generators(seed, self.device)
        seed_orders(self.loader, seed)

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
        """Return the next batch, `END` after the last."""
        self.step, self.since = step, time.monotonic()
        try:
            return next(batches, END)
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
