"""Verification of all checksums and images of a set."""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from effconv_data.ordered_map import in_order
from effconv_data.shards.index import Shard, read_index
from effconv_data.shards.problems import Problem, Sample, ShardError
from effconv_data.shards.samples import decode
from effconv_data.shards.stages import counted_samples
from effconv_data.split import first_shape

__all__ = ["SplitReport", "verify"]


MOST_PROBLEMS = 1000
"""Of one shard's samples, that are told one by one."""


class SplitReport(NamedTuple):
    """The content and the problems of a split."""

    samples: int
    """Samples without a problem."""
    class_counts: tuple[int, ...]
    """Number of good samples per class, in label order."""
    image_shape: tuple[int, int, int] | None
    """`(C, H, W)`; None if no image can be read."""
    problems: list[Problem]
    """What is wrong, one for each sample or shard; of a shard's samples the first 1,000."""


def verify(
    folder: str | Path, *, on_shard: Callable[[str, int, int], None] | None = None
) -> dict[str, SplitReport]:
    """Check the checksum of each shard and decode all parts of each sample of a set.

    Args:
        folder: the set's folder or its address.
        on_shard: called after each shard with the split's name, the number of its shards that are
            done, and their total.

    Returns:
        A report for each split; nothing is raised for a damaged shard.

    Raises:
        FileNotFoundError: if there is no index.
        ValueError: if the index is malformed.
    """
    index = read_index(folder)
    reports = {}
    for split, shards in index.splits.items():
        try:
            shape = first_shape(index, shards)
        except ShardError as error:
            none = (0,) * len(index.classes)
            reports[split] = SplitReport(0, none, None, [error.problem])
            continue
        tasks = [(shard, shape, len(index.classes)) for shard in shards]
        counts, problems = np.zeros(len(index.classes), dtype=int), []
        for done, (found, wrong) in enumerate(in_order(_verify_shard, tasks), 1):
            for label, samples in found.items():
                counts[label] += samples
            problems += wrong
            if on_shard is not None:
                on_shard(split, done, len(shards))
        reports[split] = SplitReport(int(counts.sum()), tuple(counts.tolist()), shape, problems)
    return reports


def _verify_shard(
    shard: Shard, shape: tuple[int, int, int], num_classes: int
) -> tuple[Counter[int], list[Problem]]:
    """Return the number of good samples of each class, and the problems of the others."""
    counts: Counter[int] = Counter()
    problems: list[Problem] = []
    more = 0
    try:
        for sample in counted_samples(shard):
            try:
                _, label = decode(shard, sample, shape, num_classes)
                _decode_other_parts(shard, sample)
                counts[label] += 1
            except ShardError as error:
                if len(problems) < MOST_PROBLEMS:
                    problems.append(error.problem)
                else:
                    more += 1
    except ShardError as error:
        problems.append(error.problem)
    if more:
        sentence = f"shard {shard.url} has {more} more samples that cannot be used"
        problems.append(Problem(shard.url, None, f"{sentence}; write it again"))
    return counts, problems


LARGEST_ARRAYS = 1 << 28
"""Largest unpacked size of an .npz, in bytes."""


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > LARGEST_ARRAYS:
        raise ValueError(f"it unpacks to {size} bytes; {LARGEST_ARRAYS} are allowed")
    return dict(np.load(io.BytesIO(data), allow_pickle=False))


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "txt": bytes.decode,
    "json": json.loads,
    "npy": lambda data: np.load(io.BytesIO(data), allow_pickle=False),
    "npz": _arrays,
}


def _decode_other_parts(shard: Shard, sample: Sample) -> None:
    for part, data in sample.parts.items():
        decoder = DECODERS.get(part.rsplit(".", 1)[-1])
        try:
            if decoder is not None:
                decoder(data)
        except Exception as error:  # each decoder raises its own types
            sentence = (
                f"sample {sample.key} of shard {shard.url} has a .{part} that cannot be decoded "
                f"({error}); write the shard again"
            )
            raise ShardError(Problem(shard.url, sample.key, sentence)) from error
