"""A split that is read from its shards on demand."""

import contextlib
import copy
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from webdataset import DataPipeline
from webdataset.compat import FluidWrapper

from effconv_data._checks import check_integer
from effconv_data.loading.batches import Augment, Batches
from effconv_data.loading.order import LANES, Order, Piece
from effconv_data.loading.pipeline import Part, Stage, Tally, batch_stages, sample_stages
from effconv_data.shards.index import Shard
from effconv_data.shards.problems import Problem

__all__ = ["StreamedBatches", "usual_workers"]

STALL = 600  # seconds without a batch after which a reader counts as hung


class StreamedBatches(Batches):
    """Batches that worker processes read from shards, in memory that does not grow with the set.

    Args:
        shards: the split's shards, in order.
        classes: class names in label order.
        image_shape: `(C, H, W)` of all images.
        batch_size: samples in a batch of this rank.
        mean: `(C,)` for normalisation, of each channel on the scale 0..1; None only where
            `normalized` is False.
        std: `(C,)`, as `mean`.
        training: whether to shuffle and to drop a short last batch.
        limit: take only the first samples of the split; None takes all.
        augment: applied to each uint8 batch before normalisation; None does nothing.
        normalized: False yields uint8 images.
        seed: seed of order and augmentation, 0 or more.
        device: device of the batches.
        rank: index of the part of each global batch for this process, from 0.
        world_size: number of ranks.
        workers: processes that read, at most 8 of them; 0 reads in this one, None takes
            `usual_workers`.
        on_error: `"raise"` stops at the first unusable sample; `"skip"` leaves it out of its
            batch, keeps it in `problems` and logs their number with each epoch.
        name: name of the set.

    Attributes:
        workers: processes that read.
        stages: what `compose` has put before decoding.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if a number is out of its range or there is no batch to give.
        ShardError: while iterating, if a sample cannot be read; it is a ValueError.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        classes: Sequence[str],
        image_shape: tuple[int, int, int],
        batch_size: int,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        training: bool = True,
        limit: int | None = None,
        augment: Augment | None = None,
        normalized: bool = True,
        seed: int = 0,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        workers: int | None = None,
        on_error: str = "raise",
        name: str = "shards",
    ) -> None:
        check_integer("batch_size", batch_size, 1)
        check_integer("seed", seed, 0)
        check_integer("world_size", world_size, 1)
        workers = usual_workers() if workers is None else workers
        check_integer("workers", workers, 0)
        self._shards = list(shards)
        counts = first_counts(self._shards, limit)
        super().__init__(
            Order(counts, batch_size * world_size, training, seed),
            name=name,
            classes=classes,
            image_shape=image_shape,
            mean=mean,
            std=std,
            augment=augment,
            normalized=normalized,
            device=device,
            rank=rank,
            world_size=world_size,
            on_error=on_error,
        )
        self.workers = workers
        self.stages: tuple[Stage, ...] = ()

    def compose(self, *stages: Stage) -> "StreamedBatches":
        """Return these batches again, with further stages before their samples are decoded.

        A stage is what `webdataset.DataPipeline` takes, such as `webdataset.map(function)` or
        `webdataset.shuffle(100)`. Samples come to it as WebDataset's dicts: `__key__`, `__url__`,
        the bytes of an image and `cls`. It may change, reorder or leave out samples. A resumed
        epoch is exact as long as no stage reorders; what a stage leaves out makes the last batches
        smaller.

        Args:
            stages: in the order of their work, behind those there are.
        """
        composed = copy.copy(self)
        composed.stages = (*self.stages, *stages)
        composed.problems = []
        return composed

    def pipeline(self) -> FluidWrapper:
        """Return this rank's undecoded samples as a pipeline of WebDataset's, to go on from.

        It gives the dicts that `compose` tells of, in the order of the next `iter()`, from the
        batch at which that begins, and has WebDataset's methods `map`, `shuffle`, `decode`,
        `to_tuple`, `batched`, `compose` and so on. Iterate it here, or by a DataLoader of `workers`
        processes. It raises ShardError at what cannot be read, or with `on_error="skip"` leaves it
        out.
        """
        pieces = self._pieces(self.epoch)
        tally = None if self._on_error == "raise" else Tally()
        batches = range(self._resume_at, len(self))
        first, *others = sample_stages(
            pieces, self.workers, self._shards, batches, self.image_shape, self.num_classes, tally
        )
        return FluidWrapper(first).compose(*others, *self.stages)

    def _pieces(self, epoch: int) -> list[Piece]:
        readers = max(self.workers, 1)
        return self._order.pieces(epoch, self._rank, self._world_size, readers)

    def _raw(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, list[Problem]]]:
        pieces = self._pieces(epoch)
        workers = min(self.workers, len(pieces))
        kind = (range(first, len(self)), self.image_shape, self.num_classes)
        tally, stop = Tally(), self._on_error == "raise"
        rows = DataPipeline(
            *sample_stages(pieces, workers, self._shards, *kind, tally),
            *self.stages,
            *batch_stages(*kind, tally, stop_at_problem=stop),
        )
        items = iter(_in_workers(rows, workers) if workers else rows)
        for _ in range(first, len(self)):
            try:
                parts = [next(items) for _ in range(max(workers, 1))]
            except (RuntimeError, OSError, EOFError) as error:  # as a killed worker is noticed
                if not workers or str(error).startswith("Caught "):  # of a stage before decoding
                    raise
                if not isinstance(error, RuntimeError):
                    _hear_the_signal()
                hangs = "timed out" in str(error)  # as DataLoader says it
                what = f"gave nothing for {STALL} s" if hangs else f"ended ({error!r})"
                raise RuntimeError(
                    f"a process that reads the shards of {self.name} {what}; start again and "
                    "load_state_dict what state_dict() gives, which is behind the last batch given"
                ) from error
            yield self._together(parts)

    def _together(self, parts: list[Part]) -> tuple[Tensor, Tensor, list[Problem]]:
        problems = [problem for part in parts for problem in part.problems]
        images, labels = (self._joined(tensors) for tensors in list(zip(*parts, strict=True))[:2])
        return images, labels, problems

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        if self._device.type != "cuda":
            return torch.cat(parts).to(self._device)
        # From pinned memory, so that this process does not wait for the copy.
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        pinned = torch.empty(shape, dtype=parts[0].dtype, pin_memory=True)
        return torch.cat(parts, out=pinned).to(self._device, non_blocking=True)


def first_counts(shards: Sequence[Shard], limit: int | None) -> tuple[int, ...]:
    """Return the number of samples of each shard among the first `limit` samples of all."""
    if limit is None:
        return tuple(shard.samples for shard in shards)
    check_integer("limit", limit, 1)
    counts, left = [], limit
    for shard in shards:
        counts.append(min(shard.samples, left))
        left -= counts[-1]
        if not left:
            break
    return tuple(counts)


def usual_workers() -> int:
    """Return this rank's part of the processors, at most 8; 0 if processes are not forked."""
    if sys.platform != "linux":  # elsewhere a new process runs the user's script again
        return 0
    if multiprocessing.current_process().daemon:  # daemons may have no children
        return 0
    ranks = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return min(LANES, max(1, len(os.sched_getaffinity(0)) // ranks))


def _hear_the_signal() -> None:
    """Wait for torch's error of a dead worker, so that it is not raised later in the caller.

    A broken connection is noticed before the SIGCHLD for which torch raises a RuntimeError.
    """
    with contextlib.suppress(RuntimeError):
        time.sleep(1)  # ended by that error


def _in_workers(rows: DataPipeline, workers: int) -> DataLoader:
    """Read in worker processes; they return a batch's parts one after another."""
    return DataLoader(
        rows,
        batch_size=None,
        num_workers=workers,
        timeout=STALL,
        collate_fn=_as_it_is,
        # Its seed is unused here, and must not be drawn from the global generator.
        generator=torch.Generator(),
        multiprocessing_context="fork" if sys.platform == "linux" else None,
    )


def _as_it_is(item: Part) -> Part:
    return item
