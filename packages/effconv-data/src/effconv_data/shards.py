"""Image classification sets as WebDataset shards: an index and gzip-compressed or plain tars.

A set is a folder. Its `index.json` names the classes in label order and, for every split, the
shards with their samples:

    {"classes": ["cat", "dog"],
     "splits": {"train": {"samples": 2,
                          "shards": [{"file": "train-00000.tar.gz", "samples": 2,
                                      "sha256": "..."}]}}}

A sample is two members of a shard with the same key: `KEY.jpg`, `KEY.jpeg` or `KEY.png`, 8 bits
grey or RGB, and `KEY.cls`, the label in decimal digits. `sha256` is checked where it is given.
"""

import gzip
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from webdataset.tariterators import group_by_keys, tar_file_expander

from effconv_data._checks import check_integer

__all__ = ["Split", "read_split"]

IMAGE_PARTS = ("jpg", "jpeg", "png")
CHANNELS = {"L": 1, "RGB": 3}


class Split(NamedTuple):
    """One split of a set, decoded, in the order of its shards."""

    images: Tensor
    """`(N, C, H, W)` uint8, on the CPU."""
    labels: Tensor
    """`(N,)` int64, indices into `classes`."""
    classes: tuple[str, ...]
    """Class names in label order."""


class _Shard(NamedTuple):
    path: Path
    samples: int
    sha256: str | None


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
    if limit is not None:
        check_integer("limit", limit, 1)
    classes, shards = _read_index(Path(folder), split)
    total = sum(shard.samples for shard in shards)
    total = total if limit is None else min(total, limit)
    shape = _first_shape(shards[0])
    images = torch.empty(total, *shape, dtype=torch.uint8)
    labels = torch.empty(total, dtype=torch.int64)

    tasks, start = [], 0
    for shard in shards:
        if start < total:
            wanted = min(shard.samples, total - start)
            tasks.append((shard, wanted, shape, len(classes)))
            start += wanted
    start = 0
    for pixels, indices in _parallel(_read_shard, tasks):
        stop = start + len(indices)
        images[start:stop], labels[start:stop] = torch.from_numpy(pixels), torch.from_numpy(indices)
        start = stop
    return Split(images, labels, classes)


def _read_index(folder: Path, split: str) -> tuple[tuple[str, ...], list[_Shard]]:
    """Give the class names and the shards of a split, after every check that needs no sample."""
    path = folder / "index.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; pass a folder of shards with an index.json, or put one there"
        )

    def check(holds: object, problem: str) -> None:
        if not holds:
            raise ValueError(f"{path} {problem}; write the index anew from the shards")

    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not JSON ({error}); write the index anew from the shards"
        ) from error
    check(isinstance(index, dict), "is not an object with 'classes' and 'splits'")
    classes, splits = index.get("classes"), index.get("splits")
    check(
        isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes),
        "has no list of class names under 'classes'",
    )
    check(len(set(classes)) == len(classes), "names a class twice")
    check(isinstance(splits, dict) and splits, "has no splits under 'splits'")
    if split not in splits:
        raise ValueError(f"split {split!r} is not in {path}; pass one of {sorted(splits)}")

    entry = splits[split]
    rows = entry.get("shards") if isinstance(entry, dict) else None
    check(isinstance(rows, list) and rows, f"has no list of shards for split {split!r}")
    shards = [_index_row(folder, row, check) for row in rows]
    check(
        len({shard.path for shard in shards}) == len(shards),
        f"names a shard of split {split!r} twice",
    )
    counted = sum(shard.samples for shard in shards)
    check(
        entry.get("samples") == counted,
        f"gives split {split!r} {entry.get('samples')!r} samples but its shards {counted}",
    )
    missing = [shard.path.name for shard in shards if not shard.path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(shards)} shards of split {split!r} are missing from {folder}, "
            f"{missing[0]} first; copy the whole set"
        )
    return tuple(classes), shards


def _index_row(folder: Path, row: Any, check: Callable[[object, str], None]) -> _Shard:
    check(isinstance(row, dict), f"describes a shard by {row!r}, which is not an object")
    file, samples, sha256 = row.get("file"), row.get("samples"), row.get("sha256")
    # A name with a folder in it could point out of the set.
    check(
        isinstance(file, str) and Path(file).name == file and file.endswith((".tar", ".tar.gz")),
        f"names the shard {file!r}, which is no plain name ending in .tar or .tar.gz",
    )
    check(
        isinstance(samples, int) and not isinstance(samples, bool) and samples > 0,
        f"gives shard {file} {samples!r} samples, which is no positive integer",
    )
    check(
        sha256 is None
        or (isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256) is not None),
        f"gives shard {file} the sha256 {sha256!r}, which is not 64 hexadecimal digits",
    )
    return _Shard(folder / file, samples, sha256)


def _first_shape(shard: _Shard) -> tuple[int, int, int]:
    """Give the shape (C, H, W) of a shard's first image."""
    for sample in _samples(shard, shard.path.read_bytes()):
        return _image(shard, sample).shape
    raise ValueError(f"shard {shard.path} holds no samples; copy the set again")


def _parallel(function: Callable[..., Any], tasks: list[tuple[Any, ...]]) -> Iterator[Any]:
    """Give `function(*task)` for every task in order, from several processes where that helps."""
    # Processes, because threads are slower here than one alone: half of the time is tarfile's and
    # Pillow's Python code. By fork, because other ways start the user's script a second time; the
    # children touch neither torch nor the accelerator. Elsewhere fork is missing or unsafe.
    workers = min(len(tasks), len(os.sched_getaffinity(0))) if sys.platform == "linux" else 1
    if workers == 1:
        yield from itertools.starmap(function, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        yield from pool.map(function, *zip(*tasks, strict=True))


def _read_shard(
    shard: _Shard, wanted: int, shape: tuple[int, int, int], num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read a shard's first samples: images `(wanted, C, H, W)` uint8, labels `(wanted,)` int64."""
    data = shard.path.read_bytes()
    if shard.sha256 is not None and hashlib.sha256(data).hexdigest() != shard.sha256:
        raise ValueError(
            f"shard {shard.path} does not have the sha256 that the index gives; copy the set again"
        )
    images = np.empty((wanted, *shape), dtype=np.uint8)
    labels = np.empty(wanted, dtype=np.int64)
    count = 0
    for sample in _samples(shard, data):
        if count == wanted < shard.samples:
            break
        count += 1
        if count > shard.samples:
            raise ValueError(_miscounted(shard, f"more than {shard.samples}"))
        image = _image(shard, sample)
        if image.shape != shape:
            raise ValueError(
                f"sample {sample['__key__']} of shard {shard.path} has shape {image.shape} but the "
                f"first of the split {shape}; make all images (C, H, W) alike"
            )
        images[count - 1], labels[count - 1] = image, _label(shard, sample, num_classes)
    if count < wanted:
        raise ValueError(_miscounted(shard, f"only {count}"))
    return images, labels


def _miscounted(shard: _Shard, found: str) -> str:
    return (
        f"shard {shard.path} holds {found} samples but the index says {shard.samples}; copy the "
        "set again or write its index anew"
    )


def _samples(shard: _Shard, data: bytes) -> Iterator[dict[str, Any]]:
    """Give a shard's samples as WebDataset groups them: `__key__` and the bytes of each part."""
    try:
        # All at once, because gzip then checks its sum, which tarfile's streams do not.
        plain = gzip.decompress(data) if shard.path.suffix == ".gz" else data
        # From memory, because WebDataset's own opener runs commands that stand in names.
        source = [{"url": str(shard.path), "stream": io.BytesIO(plain)}]
        yield from group_by_keys(tar_file_expander(source))
    except Exception as error:  # tarfile, gzip and WebDataset each raise kinds of their own
        reason = error.args[0] if error.args else type(error).__name__
        raise ValueError(
            f"shard {shard.path} cannot be read ({reason}); copy the set again"
        ) from error


def _image(shard: _Shard, sample: dict[str, Any]) -> np.ndarray:
    """Decode a sample's image into `(C, H, W)` uint8."""
    name = f"sample {sample['__key__']} of shard {shard.path}"
    parts = [part for part in IMAGE_PARTS if part in sample]
    if len(parts) != 1:
        raise ValueError(
            f"{name} has {len(parts)} images; a sample has exactly one .jpg, .jpeg or .png, so "
            "write the shard anew"
        )
    try:
        image = Image.open(io.BytesIO(sample[parts[0]]), formats=("JPEG", "PNG"))
        image.load()
    except Exception as error:  # Pillow's decoders raise many kinds on damaged input
        raise ValueError(
            f"{name} has a .{parts[0]} that cannot be decoded ({type(error).__name__}); copy the "
            "set again or write the shard anew"
        ) from error
    if image.mode not in CHANNELS:
        raise ValueError(
            f"{name} is an image of mode {image.mode}; 8-bit grey (L) and RGB are allowed, so "
            "convert it"
        )
    pixels = np.asarray(image).reshape(image.height, image.width, CHANNELS[image.mode])
    return pixels.transpose(2, 0, 1)


def _label(shard: _Shard, sample: dict[str, Any], num_classes: int) -> int:
    """Give a sample's label, an index into the class list."""
    name = f"sample {sample['__key__']} of shard {shard.path}"
    if "cls" not in sample:
        raise ValueError(f"{name} has no .cls; every sample needs a label, so write the shard anew")
    text = sample["cls"].strip()
    if not re.fullmatch(rb"[0-9]{1,18}", text):
        raise ValueError(
            f"{name} has the label {text[:20]!r}; a .cls holds decimal digits, so write the shard "
            "anew"
        )
    label = int(text)
    if label >= num_classes:
        raise ValueError(
            f"{name} has label {label}; the index names {num_classes} classes, so labels run from "
            f"0 to {num_classes - 1}: mend the index or the shard"
        )
    return label
