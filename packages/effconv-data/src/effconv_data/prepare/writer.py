"""Write samples as shards with an index: shuffled, encoded in parallel, resumable."""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
from PIL import features

import effconv_data
from effconv_data._checks import check_integer
from effconv_data.io.atomic import write_bytes
from effconv_data.ordered_map import in_order
from effconv_data.prepare.encode import encode_shard
from effconv_data.prepare.journal import INDEX, begin, check_place, claimed
from effconv_data.prepare.types import Archive, OnProgress, Prepared, Progress
from effconv_data.shards.index import LARGEST_IMAGE, MOST_SAMPLES

__all__ = ["check_writing", "write_set"]

SCHEMA = 2
# Large enough that opening a file is cheap, small enough that several fit in memory.
SHARD_BYTES = 12_000_000
# So that several readers can share a split; but no shard gets fewer samples than this for it.
SHARDS_PER_SPLIT, SAMPLES_PER_SHARD = 8, 100


class _Shard(NamedTuple):
    """A shard to be written: the block and indices of its samples."""

    file: str
    block: int
    indices: np.ndarray
    start: int
    """Index of the block's first sample within the split."""


def check_writing(
    out: Path, *, shard_samples: int | None, seed: int, workers: int | None, overwrite: bool
) -> None:
    """Raise as `write_set` would for its options, before any long work starts."""
    check_integer("seed", seed, 0)
    if shard_samples is not None:
        check_integer("shard_samples", shard_samples, 1)
        if shard_samples > MOST_SAMPLES:
            raise ValueError(
                f"shard_samples is {shard_samples}; a shard holds at most {MOST_SAMPLES}, so lower "
                "it"
            )
    if workers is not None:
        check_integer("workers", workers, 1)
    check_place(out, overwrite=overwrite)


def write_set(
    archive: Archive,
    out: Path,
    *,
    shard_samples: int | None,
    seed: int,
    workers: int | None,
    overwrite: bool,
    on_progress: OnProgress,
) -> Prepared:
    """Write a set as shards with an index; see `prepare` for the options and errors."""
    _, H, W = archive.image_shape
    if H * W > LARGEST_IMAGE:
        raise ValueError(
            f"the images have {H} x {W} pixels; a set has images of at most {LARGEST_IMAGE}, so "
            "make them smaller (image_size)"
        )
    settings = {
        "name": archive.name,
        "classes": list(archive.classes),
        "image_shape": list(archive.image_shape),
        "splits": {
            split: [len(block.labels) for block in blocks]
            for split, blocks in archive.splits.items()
        },
        "source": archive.sources,
        "seed": seed,
        "shard_samples": shard_samples,
        # Other versions may write other bytes for the same pixels.
        "made_by": _made_by(),
        "encoder": f"Pillow {PIL.__version__}, zlib {features.version('zlib')}",
    }
    plan = {
        split: list(_plan(archive, split, shard_samples=shard_samples, seed=seed))
        for split in archive.splits
    }
    with claimed(out):
        planned = {shard.file: len(shard.indices) for shards in plan.values() for shard in shards}
        journal = begin(out, settings, planned, overwrite=overwrite)
        kept = len(journal.rows)
        for split, shards in plan.items():
            done, total = 0, sum(len(shard.indices) for shard in shards)
            missing = []
            for shard in shards:
                if shard.file in journal.rows:
                    done += len(shard.indices)
                else:
                    missing.append(shard)
            on_progress(Progress(f"writing {split}", done, total, "samples"))
            tasks = _tasks(archive, split, missing)
            # Closed, so that the processes end with this loop also if it raises.
            with closing(in_order(encode_shard, tasks, workers)) as encoded:
                for shard, (tar, class_counts, histogram) in zip(missing, encoded, strict=True):
                    write_bytes(out / shard.file, tar)
                    row = {
                        "file": shard.file,
                        "samples": len(shard.indices),
                        "bytes": len(tar),
                        "sha256": hashlib.sha256(tar).hexdigest(),
                        "class_counts": class_counts,
                        "histogram": histogram,
                    }
                    journal.add(row)
                    done += len(shard.indices)
                    on_progress(Progress(f"writing {split}", done, total, "samples"))
        rows = {split: [journal.rows[shard.file] for shard in plan[split]] for split in plan}
        index = _index(archive, rows, seed)
        write_bytes(out / INDEX, (json.dumps(index, indent=1) + "\n").encode())
        journal.close()
    return Prepared(
        out,
        {split: entry["samples"] for split, entry in index["splits"].items()},
        {split: len(shards) for split, shards in plan.items()},
        kept,
        archive.notes,
    )


def _plan(
    archive: Archive, split: str, *, shard_samples: int | None, seed: int
) -> Iterator[_Shard]:
    """Yield the shards of a split: each block shuffled and cut into pieces of nearly equal size."""
    blocks = archive.splits[split]
    number = start = 0
    for block, (labels, _) in enumerate(blocks):
        samples = len(labels)
        if shard_samples is None:
            # A sample is two headers of 512 bytes, a label in another 512, and at most about its
            # pixels, because photographs compress little.
            size = 1536 + math.prod(archive.image_shape)
            count = max(
                math.ceil(samples * size / SHARD_BYTES),
                min(math.ceil(SHARDS_PER_SPLIT / len(blocks)), samples // SAMPLES_PER_SHARD),
                1,
            )
        else:
            count = math.ceil(samples / shard_samples)
        # Drawn separately for each split, so that a split does not depend on the others prepared;
        # by sorting raw draws, whose stream NumPy promises never to change.
        sequence = np.random.SeedSequence(seed, spawn_key=(*split.encode(), block))
        order = np.argsort(np.random.PCG64(sequence).random_raw(samples), kind="stable")
        for indices in np.array_split(order, count):
            yield _Shard(f"{split}-{number:05d}.tar", block, indices, start)
            number += 1
        start += samples


def _tasks(archive: Archive, split: str, shards: list[_Shard]) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of `encode_shard` for each shard; one block is open at a time."""
    for block, (labels, open_block) in enumerate(archive.splits[split]):
        mine = [shard for shard in shards if shard.block == block]
        if not mine:
            continue
        select = open_block()
        for _, _, indices, start in mine:
            yield select(indices), labels[indices], indices + start, len(archive.classes)
        del select


def _index(archive: Archive, rows: dict[str, list[dict[str, Any]]], seed: int) -> dict[str, Any]:
    index: dict[str, Any] = {
        "schema": SCHEMA,
        "name": archive.name,
        "classes": list(archive.classes),
        "image_shape": list(archive.image_shape),
    }
    # Without a train split there are no statistics to normalise images with.
    if "train" in rows:
        index["mean"], index["std"] = _statistics([row["histogram"] for row in rows["train"]])
    index["splits"] = {
        split: {
            "samples": sum(row["samples"] for row in shards),
            "class_counts": np.sum([row["class_counts"] for row in shards], axis=0).tolist(),
            "shards": [
                {key: row[key] for key in ("file", "samples", "bytes", "sha256")} for row in shards
            ],
        }
        for split, shards in rows.items()
    }
    index["seed"] = seed
    index["source"] = archive.sources
    if archive.notes:
        index["notes"] = list(archive.notes)
    index["made_by"] = _made_by()
    return index


def _statistics(histograms: list[list[list[int]]]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel on the scale 0..1, from integer sums."""
    mean, std = [], []
    for channel in np.sum(np.array(histograms, dtype=np.int64), axis=0).tolist():
        count = sum(channel)
        first = sum(value * pixels for value, pixels in enumerate(channel))
        second = sum(value * value * pixels for value, pixels in enumerate(channel))
        mean.append(first / (255 * count))
        std.append(math.sqrt((count * second - first * first) / (255 * count) ** 2))
    return mean, std


def _made_by() -> str:
    return f"effconv-data {effconv_data.__version__}"
