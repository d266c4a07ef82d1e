"""A split that is read from its shards on demand."""

import contextlib
import multiprocessing
import os
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from effconv_data._checks import check_integer
from effconv_data.loading.batches import Augment, Batches
from effconv_data.loading.order import LANES, Order, Piece
from effconv_data.shards.index import Shard
from effconv_data.shards.samples import (
    Problem,
    Sample,
    ShardError,
    check_size,
    decode,
    read_run,
    slim,
)

__all__ = ["StreamedBatches", "usual_workers"]

STALL = 600  # seconds without a batch after which a reader counts as hung


class StreamedBatches(Batches):
    """Batches that worker processes read from shards, in memory that does not grow with the set.

    Args:
        shards: the split's shards, in order.
        classes: class names in label order.
        image_shape: `(C, H, W)` of all images.
        batch_size: samples in a batch of this rank.
        mean: `(C,)` for normalisation, of each channel on the scale 0..1.
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
        mean: Sequence[float],
        std: Sequence[float],
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
        self._workers = workers

    def _raw(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, list[Problem]]]:
        readers = max(self._workers, 1)
        pieces = self._order.pieces(epoch, self._rank, self._world_size, readers)
        workers = min(self._workers, len(pieces))
        rows = _Rows(
            self._shards,
            pieces,
            range(first, len(self)),
            self.image_shape,
            self.num_classes,
            stop_at_problem=self._on_error == "raise",
        )
        items = iter(_in_workers(rows, workers) if workers else rows)
        for _ in range(first, len(self)):
            try:
                parts = [next(items) for _ in range(max(workers, 1))]
            except (RuntimeError, OSError, EOFError) as error:  # as a killed worker is noticed
                if not isinstance(error, RuntimeError):
                    _hear_the_signal()
                hangs = "timed out" in str(error)  # as DataLoader says it
                what = f"gave nothing for {STALL} s" if hangs else f"ended ({error!r})"
                raise RuntimeError(
                    f"a process that reads the shards of {self.name} {what}; start again and "
                    "load_state_dict what state_dict() gives, which is behind the last batch given"
                ) from error
            yield self._together(parts)

    def _together(self, parts: "list[_Part]") -> tuple[Tensor, Tensor, list[Problem]]:
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


def _in_workers(rows: "_Rows", workers: int) -> DataLoader:
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


class _Part(NamedTuple):
    """Some rows of one batch."""

    images: Tensor
    labels: Tensor
    problems: list[Problem]


class _Rows(IterableDataset):
    """One worker's rows of each batch; DataLoader gives each worker a copy."""

    def __init__(
        self,
        shards: list[Shard],
        pieces: list[Piece],
        batches: range,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        stop_at_problem: bool,
    ) -> None:
        super().__init__()
        self.shards, self.pieces, self.batches = shards, pieces, batches
        self.image_shape, self.num_classes = image_shape, num_classes
        self.stop_at_problem = stop_at_problem

    def __iter__(self) -> Iterator[_Part]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        first, stop = (len(self.pieces) * part // workers for part in (number, number + 1))
        pieces = self.pieces[first:stop]
        kind = (self.image_shape, self.num_classes)
        streams = [_stream(piece, self.shards, self.batches, *kind) for piece in pieces]
        for batch in self.batches:
            items = [
                next(stream)
                for piece, stream in zip(pieces, streams, strict=True)
                for _ in range(*piece.slots(batch))
            ]
            part = self._decoded(items)
            yield part
            if part.problems and self.stop_at_problem:
                return

    def _decoded(self, items: list[tuple[Shard, Sample | Problem]]) -> _Part:
        images = torch.empty(len(items), *self.image_shape, dtype=torch.uint8)
        labels = torch.empty(len(items), dtype=torch.int64)
        problems: list[Problem] = []
        rows = 0
        for shard, sample in items:
            if isinstance(sample, Problem):
                problems.append(sample)
                continue
            try:
                image, label = decode(shard, sample, self.image_shape, self.num_classes)
            except ShardError as error:
                problems.append(error.problem)
                continue
            images[rows].numpy()[:] = image
            labels[rows] = label
            rows += 1
        return _Part(images[:rows], labels[:rows], problems)


def _stream(
    piece: Piece,
    shards: list[Shard],
    batches: range,
    shape: tuple[int, int, int],
    num_classes: int,
) -> Iterator[tuple[Shard, Sample | Problem]]:
    """Yield the undecoded samples of a piece's slots, in order."""
    lane = piece.lane
    start = piece.slots(batches.start)[0]
    first = bisect_right(range(lane.windows), start, key=lambda number: lane.window(number)[1])
    numbers = range(first, lane.windows)
    if not numbers:
        return
    runs = lane.runs(lane.window(numbers[0])[0], lane.length)
    neighbours = _small(
        read_run((shards[shard], first, stop) for shard, first, stop in runs), shape, num_classes
    )
    ahead: list[tuple[Shard, Sample | Problem]] = []
    for number in numbers:
        low, high = lane.window(number)
        there, ahead = ahead, []
        there += [next(neighbours) for _ in range(high - low - len(there))]
        following = (high, high) if number == numbers[-1] else lane.window(number + 1)
        coming = following[1] - following[0]
        mine = piece.slots_between(low, high, batches)
        for done, place in enumerate(lane.shuffled(number)[mine - low].tolist(), 1):
            yield there[place]
            # In step with the output, so that no batch waits for a whole window.
            while len(ahead) < coming * done // len(mine):
                ahead.append(next(neighbours))


def _small(
    items: Iterator[tuple[Shard, Sample | Problem]], shape: tuple[int, int, int], num_classes: int
) -> Iterator[tuple[Shard, Sample | Problem]]:
    """Keep only the needed parts of each sample, and no sample too large for an image's shape."""
    for shard, sample in items:
        if isinstance(sample, Problem):
            yield shard, sample
            continue
        try:
            check_size(shard, sample, shape)
            yield shard, slim(shard, sample, shape, num_classes)
        except ShardError as error:
            yield shard, error.problem


def _as_it_is(item: _Part) -> _Part:
    return item
