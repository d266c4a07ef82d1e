"""The stages between an epoch's order and its batches, for a `webdataset.DataPipeline`.

`sample_stages` gives a rank's undecoded samples, WebDataset's dicts, in the order of its batches:

1. a list of pieces, the columns of an epoch's lanes that are this rank's, see `Order`;
2. `webdataset.split_by_worker`, which deals them out to the processes that read;
3. `read_pieces`: for each batch its samples of each piece. Every shard on the way is a separate
   pipeline, `shards.stages.shard_pipeline`, because a damaged one must not end the others.

Then come stages of the user's, and `batch_stages`: `webdataset.map` of `decode_sample`, and
`batch_rows`, which gives a process's part of each batch. What cannot be read does not pass through
the stages between: `read_pieces` notes it in a `Tally`, where `batch_rows` finds it.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import webdataset
from torch import Tensor

from effconv_data.loading.order import Piece
from effconv_data.shards.index import Shard
from effconv_data.shards.problems import Problem, Sample, ShardError
from effconv_data.shards.samples import check_size, decode, read_run, slim

__all__ = [
    "Part",
    "Stage",
    "Tally",
    "batch_rows",
    "batch_stages",
    "decode_sample",
    "read_pieces",
    "sample_stages",
]

Stage = Callable[[Iterable[Any]], Iterable[Any]]
"""A stage as of `webdataset.DataPipeline`: maps what the one before it yields."""


class Part(NamedTuple):
    """Some rows of one batch."""

    images: Tensor
    labels: Tensor
    problems: list[Problem]


@dataclass
class Tally:
    """What `read_pieces` tells `batch_rows` past the stages between them."""

    pieces: list[Piece] = field(default_factory=list)
    """The pieces that this process reads."""
    problems: dict[int, list[Problem]] = field(default_factory=lambda: defaultdict(list))
    """What could not be read, by batch."""


def sample_stages(
    pieces: Sequence[Piece],
    workers: int,
    shards: Sequence[Shard],
    batches: range,
    image_shape: tuple[int, int, int],
    num_classes: int,
    tally: Tally | None,
) -> list[Stage]:
    """Return the stages that give a rank's undecoded samples.

    Args:
        pieces: the rank's, in the order of its rows in a batch.
        workers: number of processes that iterate the pipeline; 0 is this one.
        shards: the split's shards, in order.
        batches: which batches of the epoch to give the samples of.
        image_shape: `(C, H, W)` of all images.
        num_classes: labels run from 0 to one less.
        tally: takes what cannot be read; None raises it.
    """
    dealt = _dealt(pieces, max(workers, 1))
    return [
        partial(iter, dealt),
        webdataset.split_by_worker,
        partial(
            read_pieces,
            shards=shards,
            batches=batches,
            image_shape=image_shape,
            num_classes=num_classes,
            tally=tally,
        ),
    ]


def batch_stages(
    batches: range,
    image_shape: tuple[int, int, int],
    num_classes: int,
    tally: Tally,
    *,
    stop_at_problem: bool,
) -> list[Stage]:
    """Return the stages that make parts of batches of undecoded samples; see `batch_rows`."""
    return [
        webdataset.map(partial(decode_sample, image_shape=image_shape, num_classes=num_classes)),
        partial(
            batch_rows,
            batches=batches,
            image_shape=image_shape,
            tally=tally,
            stop_at_problem=stop_at_problem,
        ),
    ]


def read_pieces(
    pieces: Iterable[Piece],
    *,
    shards: Sequence[Shard],
    batches: range,
    image_shape: tuple[int, int, int],
    num_classes: int,
    tally: Tally | None = None,
) -> Iterator[dict[str, Any]]:
    """Return the undecoded samples of pieces, batch after batch, and piece after piece in each.

    Memory holds two windows of undecoded samples of each piece.

    Args:
        pieces: those of this process.
        shards: the split's shards, in order.
        batches: which batches of the epoch.
        image_shape: `(C, H, W)` of all images.
        num_classes: labels run from 0 to one less.
        tally: takes the pieces, and what cannot be read; None raises it.

    Returns:
        Dicts of `__key__`, `__url__`, the bytes of an image (`jpg`, `jpeg` or `png`) and of `cls`.

    Raises:
        ShardError: while iterating, without a tally, for what cannot be read.
    """
    pieces = list(pieces)
    if tally is not None:
        tally.pieces = pieces  # before any sample is asked for
        tally.problems.clear()
    streams = [_stream(piece, shards, batches, image_shape, num_classes) for piece in pieces]
    return _read(pieces, streams, batches, tally)


def _read(
    pieces: list[Piece],
    streams: "list[Iterator[tuple[Shard, Sample | Problem]]]",
    batches: range,
    tally: Tally | None,
) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for piece, stream in zip(pieces, streams, strict=True):
            for _ in range(*piece.slots(batch)):
                shard, sample = next(stream)
                if isinstance(sample, Sample):
                    yield {"__key__": sample.key, "__url__": shard.url, **sample.parts}
                elif tally is None:
                    raise ShardError(sample)
                else:
                    tally.problems[batch].append(sample)


def decode_sample(
    sample: dict[str, Any], *, image_shape: tuple[int, int, int], num_classes: int
) -> tuple[np.ndarray, int] | Problem:
    """Return a sample's image `(C, H, W)` uint8 and label, or why it cannot be used.

    Args:
        sample: as of `read_pieces`.
        image_shape: `(C, H, W)`.
        num_classes: labels run from 0 to one less.
    """
    parts = {part: data for part, data in sample.items() if not part.startswith("__")}
    shard = Shard(sample.get("__url__", ""), 1, None)
    try:
        return decode(shard, Sample(sample["__key__"], parts), image_shape, num_classes)
    except ShardError as error:
        return error.problem


def batch_rows(
    items: Iterable[tuple[np.ndarray, int] | Problem],
    *,
    batches: range,
    image_shape: tuple[int, int, int],
    tally: Tally,
    stop_at_problem: bool,
) -> Iterator[Part]:
    """Yield this process's rows of each batch.

    Args:
        items: as of `decode_sample`, in the order of the batches, as many as were read; where a
            stage leaves some out, the last batches are smaller.
        batches: which batches of the epoch.
        image_shape: `(C, H, W)` of all images.
        tally: what `read_pieces` told.
        stop_at_problem: whether to end behind the first part that has a problem.

    Raises:
        ValueError: if there are more items than were read.
    """
    items = iter(items)
    ahead: list[tuple[np.ndarray, int] | Problem] = []
    for batch in batches:
        rows = sum(len(range(*piece.slots(batch))) for piece in tally.pieces)
        taken, ahead = ahead, []
        # One item may be read ahead: it shows that all before it could not be read.
        while len(taken) < rows - len(tally.problems[batch]):
            item = next(items, None)
            if item is None:
                break
            taken.append(item)
        rows -= len(tally.problems[batch])
        if batch == batches[-1] and (len(taken) > rows or next(items, None) is not None):
            raise ValueError(
                "the stages before decoding give more samples than they take; a stage may change, "
                "reorder or leave out samples, but not add any"
            )
        problems = tally.problems.pop(batch)
        taken, ahead = taken[:rows], taken[rows:]
        problems += [item for item in taken if isinstance(item, Problem)]
        sound = [item for item in taken if not isinstance(item, Problem)]
        images = torch.empty(len(sound), *image_shape, dtype=torch.uint8)
        for row, (image, _) in enumerate(sound):
            images[row].numpy()[:] = image
        labels = torch.tensor([label for _, label in sound], dtype=torch.int64)
        yield Part(images, labels, problems)
        if problems and stop_at_problem:
            return


def _dealt(pieces: Sequence[Piece], workers: int) -> list[Piece]:
    """Return pieces such that dealing them out in turn gives each worker neighbours."""
    hands, start = [], 0
    for worker in range(workers):
        count = len(range(worker, len(pieces), workers))
        hands.append(pieces[start : start + count])
        start += count
    turns = -(-len(pieces) // workers)
    return [hand[turn] for turn in range(turns) for hand in hands if turn < len(hand)]


def _stream(
    piece: Piece,
    shards: Sequence[Shard],
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
