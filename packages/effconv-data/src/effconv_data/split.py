"""A split decoded into memory."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from effconv_data.io.addresses import is_remote
from effconv_data.loading.free_memory import free_memory
from effconv_data.loading.stream import first_counts
from effconv_data.ordered_map import in_order
from effconv_data.shards.index import Index, Shard, read_index
from effconv_data.shards.pixel_statistics import statistics_of_counts
from effconv_data.shards.problems import Problem, ShardError
from effconv_data.shards.samples import decode, read_run
from effconv_data.shards.stages import counted_samples

__all__ = [
    "Split",
    "decode_shards",
    "first_shape",
    "read_split",
    "shards_of",
    "split_statistics",
]


SHARDS_TRIED = 16


class Split(NamedTuple):
    """One split of a set, decoded, in the order of its shards."""

    images: Tensor
    """`(N, C, H, W)` uint8, on the CPU."""
    labels: Tensor
    """`(N,)` int64, indices into `classes`."""
    classes: tuple[str, ...]
    """Class names in label order."""


def read_split(folder: str | Path, split: str, *, limit: int | None = None) -> Split:
    """Read one split of a set of shards into memory.

    Args:
        folder: the set's folder, with `index.json` and the shards beside it.
        split: a split that the index names, such as `"train"` or `"test"`.
        limit: read at most this many samples, the first ones in shard order; None reads all.

    Returns:
        Images `(N, C, H, W)` uint8, labels `(N,)` int64 and the class names.

    Raises:
        FileNotFoundError: if the folder, the index or a shard is missing.
        TypeError: if `limit` is not an integer.
        ValueError: if the index is malformed or has no such split, or if a shard is damaged, has
            another number of samples than the index says, or holds a sample without an image or
            label, with an image that cannot be decoded or has another shape than the first, or
            with a label out of range.
    """
    index = read_index(folder)
    shards = shards_of(index, split)
    counts = first_counts(shards, limit)
    shape = first_shape(index, shards)
    images, labels, _ = decode_shards(shards, counts, shape, len(index.classes))
    return Split(images, labels, index.classes)


def shards_of(index: Index, split: str, *, check: bool = True) -> tuple[Shard, ...]:
    """Return the shards of a split, after checking that they exist.

    Args:
        index: the set.
        split: one of its splits.
        check: False skips that check.

    Raises:
        ValueError: if the index names no such split.
        FileNotFoundError: if a shard is missing.
    """
    if split not in index.splits:
        raise ValueError(
            f"split {split!r} is not in the set {index.name!r:.100}; pass one of "
            f"{sorted(index.splits)!r:.300}"
        )
    shards = index.splits[split]
    files = [Path(shard.url) for shard in shards if not is_remote(shard.url)]
    missing = [file for file in files if not file.is_file()]
    if missing and check:
        raise FileNotFoundError(
            f"{len(missing)} of {len(shards)} shards of split {split!r} are missing from "
            f"{missing[0].parent}, {missing[0].name} first; copy the whole set"
        )
    return shards


def first_shape(index: Index, shards: Sequence[Shard]) -> tuple[int, int, int]:
    """Return the shape `(C, H, W)` that the index names, or else that of the first image.

    Raises:
        ShardError: if the first 16 shards hold no image that can be read.
    """
    if index.image_shape is not None:
        return index.image_shape
    problems = []
    for shard in shards[:SHARDS_TRIED]:
        try:
            for sample in counted_samples(shard):
                try:
                    return decode(shard, sample, None, len(index.classes))[0].shape
                except ShardError as error:
                    problems = problems or [error]
        except ShardError as error:
            problems = problems or [error]
    raise problems[0]


def decode_shards(
    shards: Sequence[Shard],
    counts: Sequence[int],
    shape: tuple[int, int, int],
    num_classes: int,
    *,
    skip: bool = False,
) -> tuple[Tensor, Tensor, dict[int, Problem]]:
    """Decode the first samples of shards, in several processes.

    Args:
        shards: the shards.
        counts: number of samples of each shard; shards after the last count are left out.
        shape: `(C, H, W)` of all images.
        num_classes: labels run from 0 to one less.
        skip: go on behind what cannot be read.

    Returns:
        Images `(N, C, H, W)` uint8, labels `(N,)` int64, and the problems of those that could not
            read, by index; their pixels and labels are 0.

    Raises:
        ShardError: unless `skip` is set, for the first sample that cannot be read.
        ValueError: if there is less memory than the images take.
    """
    total = sum(counts)
    needed, free = total * math.prod(shape), free_memory()
    if needed > free:
        raise ValueError(
            f"{total} images of shape {shape} take {needed} bytes, and {free} are free; stream the "
            "split (resident=False), or take fewer samples (limit)"
        )
    images = torch.zeros(total, *shape, dtype=torch.uint8)
    labels = torch.zeros(total, dtype=torch.int64)
    missing: dict[int, Problem] = {}
    tasks = [
        (shard, count, shape, num_classes, skip)
        for shard, count in zip(shards, counts, strict=False)
    ]
    start = 0
    for pixels, indices, problems in in_order(_decode_shard, tasks):
        stop = start + len(indices)
        images[start:stop], labels[start:stop] = torch.from_numpy(pixels), torch.from_numpy(indices)
        missing |= {start + number: problem for number, problem in problems.items()}
        start = stop
    return images, labels, missing


def split_statistics(
    shards: Sequence[Shard], shape: tuple[int, int, int], num_classes: int, *, skip: bool = False
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of shards' pixels; memory holds one image per process.

    Args:
        shards: the shards.
        shape: `(C, H, W)` of all images.
        num_classes: labels run from 0 to one less.
        skip: leave out what cannot be read.

    Raises:
        ShardError: if something, or with `skip` everything, cannot be read.
    """
    found = list(in_order(_count_shard, [(shard, shape, num_classes) for shard in shards]))
    problems = [problem for _, problem in found if problem is not None]
    if problems and not (skip and any(counts.any() for counts, _ in found)):
        raise ShardError(problems[0])
    return statistics_of_counts(torch.from_numpy(counts) for counts, _ in found)


def _decode_shard(
    shard: Shard, count: int, shape: tuple[int, int, int], num_classes: int, skip: bool
) -> tuple[np.ndarray, np.ndarray, dict[int, Problem]]:
    images = np.zeros((count, *shape), dtype=np.uint8)
    labels = np.zeros(count, dtype=np.int64)
    problems = {}
    for number, (_, sample) in enumerate(read_run([(shard, 0, count)])):
        try:
            if isinstance(sample, Problem):
                raise ShardError(sample)
            images[number], labels[number] = decode(shard, sample, shape, num_classes)
        except ShardError as error:
            if not skip:
                raise
            problems[number] = error.problem
    return images, labels, problems


def _count_shard(
    shard: Shard, shape: tuple[int, int, int], num_classes: int
) -> tuple[np.ndarray, Problem | None]:
    """Count the values of each channel, `(C, 256)`; return the first problem too."""
    counts, problem = np.zeros((shape[0], 256), dtype=np.int64), None
    try:
        for sample in counted_samples(shard):
            try:
                image, _ = decode(shard, sample, shape, num_classes)
            except ShardError as error:
                problem = problem or error.problem
                continue
            # Not torch, whose threads do not survive a fork.
            counts += np.stack([np.bincount(channel.ravel(), minlength=256) for channel in image])
    except ShardError as error:
        problem = problem or error.problem
    return counts, problem
