"""The order of samples in an epoch: a pure function of seed and epoch.

In training, the shards are put in a random order, one after the other in a ring, and the ring is
cut at a random sample. Its samples, except the few that are dropped, are divided into `LANES`
runs of neighbours, each of which contributes its share to each batch. A lane is read from its
first shard to its last, a window of samples at a time, and each window is shuffled. So a lane can
be streamed in constant memory; ranks and workers divide the lanes, not the shards, which makes the
order independent of their number; and which samples are dropped changes with each epoch.

In evaluation there is one lane, the samples in their own order, and nothing is dropped.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch

from effconv_data._seeding import ORDER, seeded_generator

LANES = 8
"""More lanes mix better, and open more shards at a time."""
WINDOW = 1024
"""Samples of a lane that are shuffled together, kept undecoded in memory."""


@dataclass(frozen=True)
class Order:
    """The order of a split's samples.

    Args:
        counts: samples of each shard; `(N,)` for samples without shards.
        global_batch: samples in a batch over all ranks.
        training: whether to shuffle and to drop a short last batch.
        seed: seed of the shuffling.
        whole: whether to shuffle all samples together, for samples without shards.
    """

    counts: tuple[int, ...]
    global_batch: int
    training: bool
    seed: int
    whole: bool = False

    @property
    def samples(self) -> int:
        """Number of samples N, dropped ones included."""
        return sum(self.counts)

    @property
    def batches(self) -> int:
        """Number of batches of an epoch."""
        if self.training:
            return self.samples // self.global_batch
        return -(-self.samples // self.global_batch)

    @property
    def fingerprint(self) -> str:
        """A short text that differs if, at the same seed, the order would."""
        what = repr((self.counts, self.whole, LANES, WINDOW))
        return hashlib.sha256(what.encode()).hexdigest()[:16]

    def lanes(self, epoch: int) -> "list[Lane]":
        """Return the lanes of an epoch, in the order of their rows in a batch."""
        if not self.training or self.whole:
            length = self.batches * self.global_batch if self.training else self.samples
            return [Lane(self, epoch, 0, 0, self.global_batch, length, range(len(self.counts)), 0)]
        generator = seeded_generator(self.seed, ORDER, epoch)
        shards = torch.randperm(len(self.counts), generator=generator).tolist()
        cut = int(torch.randint(self.samples, (), generator=generator))
        count = min(LANES, self.global_batch)
        edges = [self.global_batch * lane // count for lane in range(count + 1)]
        return [
            Lane(
                self,
                epoch,
                lane,
                first,
                stop - first,
                self.batches * (stop - first),
                shards,
                (cut + self.batches * first) % self.samples,
            )
            for lane, (first, stop) in enumerate(pairwise(edges))
        ]

    def pieces(self, epoch: int, rank: int, world_size: int, readers: int = 1) -> "list[Piece]":
        """Return the pieces of lanes that a rank needs, in the order of its rows in a batch.

        A single lane is divided into as many pieces as there are readers, at most `LANES`.
        """
        share = self.global_batch // world_size
        lanes = self.lanes(epoch)
        if len(lanes) > 1:
            edges = [lane.first_row for lane in lanes] + [self.global_batch]
        else:
            # Several readers of one lane each read all of it, but decode only their own rows.
            count = min(readers, LANES, share)
            edges = [rank * share + share * part // count for part in range(count + 1)]
        pieces = []
        for number, (low, high) in enumerate(pairwise(edges)):
            first, stop = max(low, rank * share), min(high, (rank + 1) * share)
            if first < stop:
                lane = lanes[number] if len(lanes) > 1 else lanes[0]
                pieces.append(Piece(lane, first - lane.first_row, stop - lane.first_row))
        return pieces

    def batch_indices(
        self, epoch: int, first: int, rank: int, world_size: int
    ) -> Iterator[np.ndarray]:
        """Yield the samples of each of a rank's batches, from batch `first` on.

        Args:
            epoch: 0 or more.
            first: the first batch.
            rank: from 0 to world_size - 1.
            world_size: number of ranks, which divides the global batch.

        Yields:
            `(B,)` int64, indices of samples in the order of the shards.
        """
        pieces = self.pieces(epoch, rank, world_size)
        orders = {piece.lane.number: piece.lane.order() for piece in pieces}
        for batch in range(first, self.batches):
            yield np.concatenate(
                [orders[piece.lane.number][slice(*piece.slots(batch))] for piece in pieces]
            )


@dataclass(frozen=True)
class Lane:
    """A run of neighbouring samples that fills the same rows of each batch.

    A slot is a position in the lane's order of an epoch, `width` of them per batch.
    """

    parent: Order
    epoch: int
    number: int
    first_row: int
    """First of its rows in the global batch."""
    width: int
    """Number of its rows in the global batch."""
    length: int
    """Samples in the lane."""
    shards: "list[int] | range"
    """The shards in the order of the ring."""
    start: int
    """Where the lane starts in the ring."""

    @property
    def windows(self) -> int:
        """Number of windows."""
        return 1 if self.parent.whole else max(1, -(-self.length // WINDOW))

    def window(self, number: int) -> tuple[int, int]:
        """Return the slots, first and end, of a window, the unit of shuffling."""
        return tuple(self.length * edge // self.windows for edge in (number, number + 1))

    def shuffled(self, window: int) -> np.ndarray:
        """Return for each slot of a window the index of its sample within the window."""
        first, stop = self.window(window)
        if not self.parent.training:
            return np.arange(stop - first)
        if self.parent.whole:
            generator = seeded_generator(self.parent.seed, ORDER, self.epoch)
            return torch.randperm(self.parent.samples, generator=generator)[: self.length].numpy()
        generator = seeded_generator(self.parent.seed, ORDER, self.epoch, self.number, window)
        return torch.randperm(stop - first, generator=generator).numpy()

    def runs(self, first: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the shards of neighbours `first` to `stop` of the lane, unshuffled.

        Yields:
            Shard, its first sample, and the end of its range.
        """
        counts = [self.parent.counts[shard] for shard in self.shards]
        ends = list(accumulate(counts))
        low, high = self.start + first, self.start + stop
        for turn in (0, self.parent.samples):
            for shard, count, end in zip(self.shards, counts, ends, strict=True):
                begin = turn + end - count
                if low < begin + count and begin < high:
                    yield shard, max(low - begin, 0), min(high - begin, count)

    def order(self) -> np.ndarray:
        """Return the samples of all slots `(length,)`, indexed in the order of the shards."""
        if self.parent.whole:
            return self.shuffled(0)
        offsets = [0, *accumulate(self.parent.counts)]
        runs = [
            np.arange(offsets[shard] + first, offsets[shard] + stop)
            for shard, first, stop in self.runs(0, self.length)
        ]
        neighbours = np.concatenate(runs)
        for window in range(self.windows):
            first, stop = self.window(window)
            neighbours[first:stop] = neighbours[first:stop][self.shuffled(window)]
        return neighbours


@dataclass(frozen=True)
class Piece:
    """The columns of a lane for one rank, or for one of its readers."""

    lane: Lane
    first: int
    stop: int

    def slots(self, batch: int) -> tuple[int, int]:
        """Return the slots, first and end, of a batch; a short batch is divided likewise."""
        start, width = batch * self.lane.width, self.lane.width
        rows = min(width, self.lane.length - start)
        return start + rows * self.first // width, start + rows * self.stop // width

    def slots_between(self, low: int, high: int, batches: range) -> np.ndarray:
        """Return the slots of these batches from `low` to before `high`, in order."""
        width = self.lane.width
        inside = range(max(batches.start, low // width), min(batches.stop, -(-high // width)))
        slots = [np.arange(*self.slots(batch)) for batch in inside]
        joined = np.concatenate(slots) if slots else np.arange(0)
        return joined[(joined >= low) & (joined < high)]
