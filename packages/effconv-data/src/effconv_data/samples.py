"""From a shard to its samples: opened, checked, grouped by key and decoded."""

import gzip
import hashlib
import io
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from webdataset import gopen
from webdataset.tariterators import group_by_keys

from effconv_data.index import TIMEOUT, Shard, is_remote
from effconv_data.tar import tar_members

__all__ = ["Problem", "Sample", "ShardError", "decode", "read_run", "read_samples"]

IMAGE_PARTS = ("jpg", "jpeg", "png")
OTHER_PARTS = ("cls", "txt", "json", "npy", "npz")
"""What else a sample may have; none of it can run code when it is read."""
CHANNELS = {"L": 1, "RGB": 3}
IN_MEMORY = 1 << 24
"""Bytes of a remote shard that are kept in memory; a larger one lies in a temporary file."""


class Problem(NamedTuple):
    """A sample that cannot be given."""

    shard: str
    """Of which shard."""
    key: str | None
    """Which sample; None where the shard is too damaged to say."""
    sentence: str
    """What is wrong with it, and what to do."""


class ShardError(ValueError):
    """A shard or a sample of it cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem.sentence


class Sample(NamedTuple):
    """One sample as it lies in a shard."""

    key: str
    parts: dict[str, bytes]
    """Bytes by the name's ending in small letters, such as `jpg` and `cls`."""


def read_samples(shard: Shard) -> Iterator[Sample]:
    """Give the samples of a shard in order, undecoded.

    Raises:
        ShardError: if the shard is missing, has another sum than its index gives, or is damaged.
    """
    try:
        with _opened(shard) as stream:
            members = (
                {"fname": name, "data": data, "__url__": shard.url}
                for name, data in tar_members(stream)
            )
            for parts in group_by_keys(members):
                key = parts.pop("__key__")
                parts.pop("__url__")
                yield Sample(key, parts)
    except ShardError:
        raise
    except Exception as error:  # gzip, the network and WebDataset each raise kinds of their own
        # WebDataset appends to the arguments of what it passes on.
        own = error.args and not isinstance(error, OSError)
        reason = (error.args[0] if own else str(error)) or type(error).__name__
        raise _unreadable(shard, f"cannot be read ({reason}); copy the set again") from error


def read_run(runs: Iterable[tuple[Shard, int, int]]) -> Iterator[tuple[Shard, Sample | Problem]]:
    """Give the samples of parts of shards, one item for each whatever is damaged.

    Args:
        runs: shard, its first sample wanted, and the one behind the last.

    Yields:
        The shard, and the sample or what is wrong with it.
    """
    for shard, first, stop in runs:
        at, samples = 0, read_samples(shard)
        try:
            for sample in samples:
                if at == stop - 1 == shard.samples - 1 and next(samples, None) is not None:
                    raise _unreadable(shard, _miscounted(shard, f"more than {shard.samples}"))
                if at >= first:
                    yield shard, sample
                at += 1
                if at == stop:
                    break
            else:
                raise _unreadable(shard, _miscounted(shard, f"only {at}"))
        except ShardError as error:
            for _ in range(max(at, first), stop):
                yield shard, error.problem
        samples.close()


def decode(
    shard: Shard, sample: Sample, shape: tuple[int, int, int] | None, num_classes: int
) -> tuple[np.ndarray, int]:
    """Give a sample's image `(C, H, W)` uint8 and its label.

    Args:
        shard: where it is from.
        sample: the sample.
        shape: what the image's shape must be; None takes any.
        num_classes: labels run from 0 to one less.

    Raises:
        ShardError: if a part may not be there, the image is missing, cannot be decoded or has
            another shape, or the label is missing or out of range.
    """
    for part in sample.parts:
        if part.rsplit(".", 1)[-1] not in IMAGE_PARTS + OTHER_PARTS:
            raise _unusable(
                shard,
                sample,
                f"has the member {sample.key}.{part}; only {', '.join(IMAGE_PARTS + OTHER_PARTS)} "
                "are read, because others may run code, so write the shard without it",
            )
    return _image(shard, sample, shape), _label(shard, sample, num_classes)


@contextmanager
def _opened(shard: Shard) -> Iterator[BinaryIO]:
    """Open a shard after a check of its sum, decompressed."""
    with _local_copy(shard.url) as file:
        if shard.sha256 is not None and _sha256(file) != shard.sha256:
            raise _unreadable(
                shard, "does not have the sha256 that the index gives; copy the set again"
            )
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        yield (
            io.BufferedReader(gzip.GzipFile(fileobj=file, mode="rb"), 1 << 20)
            if compressed
            else file
        )


@contextmanager
def _local_copy(url: str) -> Iterator[BinaryIO]:
    """Give a file that can be read from the start again, whatever the source."""
    if not is_remote(url):
        with Path(url).open("rb") as file:
            yield file
        return
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as copy:
        # WebDataset would run curl, which hands on a server's error page as if it were the shard.
        web = url.startswith(("http://", "https://"))
        with urllib.request.urlopen(url, timeout=TIMEOUT) if web else gopen(url) as source:
            shutil.copyfileobj(source, copy, 1 << 20)
        copy.seek(0)
        yield copy


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


def _image(shard: Shard, sample: Sample, shape: tuple[int, int, int] | None) -> np.ndarray:
    parts = [part for part in IMAGE_PARTS if part in sample.parts]
    if len(parts) != 1:
        raise _unusable(
            shard,
            sample,
            f"has {len(parts)} images; a sample has exactly one .jpg, .jpeg or .png, so write the "
            "shard anew",
        )
    try:
        image = Image.open(io.BytesIO(sample.parts[parts[0]]), formats=("JPEG", "PNG"))
        found = CHANNELS.get(image.mode, 0), image.height, image.width
        # Before the pixels, because a damaged header may ask for any number of them.
        if shape is None or found == shape:
            image.load()
    except Exception as error:  # Pillow's decoders raise many kinds on damaged input
        raise _unusable(
            shard,
            sample,
            f"has a .{parts[0]} that cannot be decoded ({type(error).__name__}); copy the set "
            "again or write the shard anew",
        ) from error
    if image.mode not in CHANNELS:
        raise _unusable(
            shard,
            sample,
            f"is an image of mode {image.mode}; 8-bit grey (L) and RGB are allowed, so convert it",
        )
    if shape is not None and found != shape:
        raise _unusable(
            shard,
            sample,
            f"has shape {found} but the set {shape}; make all images (C, H, W) alike",
        )
    return np.asarray(image).reshape(found[1], found[2], found[0]).transpose(2, 0, 1)


def _label(shard: Shard, sample: Sample, num_classes: int) -> int:
    if "cls" not in sample.parts:
        raise _unusable(
            shard, sample, "has no .cls; every sample needs a label, so write the shard anew"
        )
    text = sample.parts["cls"].strip()
    if not re.fullmatch(rb"[0-9]{1,18}", text):
        raise _unusable(
            shard,
            sample,
            f"has the label {text[:20]!r}; a .cls holds decimal digits, so write the shard anew",
        )
    label = int(text)
    if label >= num_classes:
        raise _unusable(
            shard,
            sample,
            f"has label {label}; the index names {num_classes} classes, so labels run from 0 to "
            f"{num_classes - 1}: mend the index or the shard",
        )
    return label


def _miscounted(shard: Shard, found: str) -> str:
    return (
        f"holds {found} samples but the index says {shard.samples}; copy the set again or write "
        "its index anew"
    )


def _unreadable(shard: Shard, what: str) -> ShardError:
    return ShardError(Problem(shard.url, None, f"shard {shard.url} {what}"))


def _unusable(shard: Shard, sample: Sample, what: str) -> ShardError:
    return ShardError(
        Problem(shard.url, sample.key, f"sample {sample.key} of shard {shard.url} {what}")
    )
