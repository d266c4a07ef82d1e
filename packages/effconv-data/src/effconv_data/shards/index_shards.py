"""Build an index by reading shards that have none."""

from collections.abc import Sequence

import numpy as np
import torch

from effconv_data.ordered_map import in_order
from effconv_data.shards.index import MOST_CLASSES, Index, Shard
from effconv_data.shards.pixel_statistics import statistics_of_counts
from effconv_data.shards.problems import ShardError
from effconv_data.shards.samples import decode
from effconv_data.shards.stages import read_samples

__all__ = ["scan_shards"]


def scan_shards(
    urls: Sequence[str], split: str, *, skip: bool = False, allow_commands: bool = False
) -> Index:
    """Read shards once; return an index of them as one split.

    Classes are named by their numbers, from 0 to the largest label.

    Args:
        urls: paths or addresses.
        split: name of the split.
        skip: leave out what cannot be read: samples, and the rest of a damaged shard.
        allow_commands: whether programs may be run to read them.

    Raises:
        ShardError: for what cannot be read.
        ValueError: if there is no shard, one is empty or named twice, or images differ in shape.
    """
    urls = list(urls)
    if not urls or len(set(urls)) < len(urls):
        raise ValueError(f"the shards are {urls}; name at least one, and none twice")
    rows = list(in_order(_scan_shard, [(url, skip, allow_commands) for url in urls]))
    if skip and any(row[0] for row in rows):
        urls = [url for url, row in zip(urls, rows, strict=True) if row[0]]
        rows = [row for row in rows if row[0]]
    for url, (samples, shape, _, _) in zip(urls, rows, strict=True):
        if not samples:
            raise ValueError(f"shard {url} holds no samples; leave it out")
        if shape != rows[0][1]:
            raise ValueError(
                f"images of shard {url} have shape {shape} but those of {urls[0]} {rows[0][1]}; "
                "make all images (C, H, W) alike"
            )
    mean, std = statistics_of_counts(torch.from_numpy(counts) for *_, counts in rows)
    shards = tuple(
        Shard(url, row[0], None, allow_commands=allow_commands)
        for url, row in zip(urls, rows, strict=True)
    )
    classes = tuple(map(str, range(max(largest for _, _, largest, _ in rows) + 1)))
    return Index("shards", classes, {split: shards}, rows[0][1], mean, std)


def _scan_shard(
    url: str, skip: bool, allow_commands: bool
) -> tuple[int, tuple[int, ...] | None, int, np.ndarray]:
    """Return a shard's number of samples, image shape, largest label and counts of pixel values."""
    shard = Shard(url, 0, None, allow_commands=allow_commands)
    shape, largest, samples, counts = None, 0, 0, np.zeros((0, 256))
    try:
        for sample in read_samples(shard):
            samples += 1
            try:
                image, label = decode(shard, sample, shape, MOST_CLASSES)
            except ShardError:
                if not skip:
                    raise
                continue
            if shape is None:
                shape, counts = image.shape, np.zeros((len(image), 256), dtype=np.int64)
            counts += np.stack([np.bincount(channel.ravel(), minlength=256) for channel in image])
            largest = max(largest, label)
    except ShardError:
        if not skip:
            raise
    # If no sample is intact there is nothing to return.
    return (samples if shape else 0), shape, largest, counts
