"""Read the samples of a shard: open, check, group by key and decode."""

import gzip
import hashlib
import io
import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from webdataset import gopen

from effconv_data.io.addresses import check_address, is_http, is_remote
from effconv_data.io.web import copy_from
from effconv_data.shards.index import LARGEST_IMAGE, Shard
from effconv_data.shards.tar import BLOCK, LARGEST_MEMBER, tar_members

__all__ = [
    "Problem",
    "Sample",
    "ShardError",
    "check_size",
    "counted_samples",
    "decode",
    "read_run",
    "read_samples",
    "slim",
]

IMAGE_PARTS = ("jpg", "jpeg", "png")
OTHER_PARTS = ("cls", "txt", "json", "npy", "npz")
"""Other parts that a sample may have; none of them can run code when it is read."""
NEEDED_PARTS = (*IMAGE_PARTS, "cls")
CHANNELS = {"L": 1, "RGB": 3}
IMAGE_EXTRA = 1 << 18
"""Bytes that an image file may have in addition to its pixels, such as a colour profile."""
SLIM_EXTRA = 1 << 14
"""As `IMAGE_EXTRA`, of samples that wait to be decoded."""
GZIP = b"\x1f\x8b"
DEFLATE = 1032
"""Times that gzip can shrink what it packs, at most."""
MOST_PARTS = 64
"""Of a sample."""
LARGEST_SAMPLE = 4 * LARGEST_MEMBER
"""Bytes of all parts of a sample."""
LARGEST_SHARD = 8 << 30
"""Bytes of a remote shard whose size the index does not give."""
IN_MEMORY = 1 << 24
"""Largest size in bytes of a remote shard kept in memory; larger ones go to a temporary file."""


class Problem(NamedTuple):
    """A sample that cannot be used."""

    shard: str
    """URL of the shard."""
    key: str | None
    """Key of the sample; None if the shard is too damaged to tell."""
    sentence: str
    """The problem and the remedy."""


class ShardError(ValueError):
    """A shard or a sample of it cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem.sentence


class Sample(NamedTuple):
    """One sample as stored in a shard."""

    key: str
    parts: dict[str, bytes]
    """Bytes by lower-case file extension, such as `jpg` and `cls`."""


def read_samples(shard: Shard) -> Iterator[Sample]:
    """Yield the samples of a shard in order, undecoded.

    Consecutive members whose names agree up to the first dot form one sample, as in WebDataset.

    Raises:
        ShardError: if the shard is missing, its checksum is not the index's, it is damaged or holds
            a member that belongs to no sample.
    """
    try:
        with _opened(shard) as stream:
            sample: Sample | None = None
            size = 0
            for name, data in tar_members(stream):
                match = re.fullmatch(r"((?:.*/)?[^./]+)\.([^/]+)", name, re.DOTALL)
                if match is None:
                    raise _unreadable(
                        shard,
                        f"has the member {name!r}, which belongs to no sample; a name is a key, a "
                        "dot and the kind of its content, so write the shard anew",
                    )
                key, part = match[1], match[2].lower()
                if sample is None or key != sample.key:
                    if sample is not None:
                        yield sample
                    sample = Sample(key, {})
                    size = 0
                if part in sample.parts:
                    raise _unreadable(shard, f"has the member {name!r} twice; write the shard anew")
                sample.parts[part] = data
                size += len(data)
                if len(sample.parts) > MOST_PARTS or size > LARGEST_SAMPLE:
                    raise _unreadable(
                        shard,
                        f"has the sample {key!r:.100} of more than {MOST_PARTS} parts or "
                        f"{LARGEST_SAMPLE} bytes, which none may have; write the shard anew",
                    )
            if sample is not None:
                yield sample
    except ShardError:
        raise
    except Exception as error:  # tar, gzip and the network each raise their own types
        reason = str(error) or type(error).__name__
        raise _unreadable(shard, f"cannot be read ({reason}); copy the set again") from error


def counted_samples(shard: Shard, stop: int | None = None) -> Iterator[Sample]:
    """Yield the first samples of a shard, which must be as many as its index says.

    Args:
        shard: the shard; it is not read on when there are more samples than it may have.
        stop: how many; None gives all.

    Raises:
        ShardError: as `read_samples` does, or if there are fewer, or more than there may be.
    """
    stop = shard.samples if stop is None else stop
    at, samples = 0, read_samples(shard)
    for at, sample in enumerate(samples, 1):
        if at == stop == shard.samples and next(samples, None) is not None:
            raise _unreadable(shard, _miscounted(shard, f"more than {shard.samples}"))
        yield sample
        if at == stop:
            samples.close()
            return
    raise _unreadable(shard, _miscounted(shard, f"only {at}"))


def read_run(runs: Iterable[tuple[Shard, int, int]]) -> Iterator[tuple[Shard, Sample | Problem]]:
    """Yield the samples of parts of shards, one item each, whatever is damaged.

    Args:
        runs: shard, its first sample, and the end of the range.

    Yields:
        The shard, and the sample or its problem.
    """
    for shard, first, stop in runs:
        at, problem = 0, None
        try:
            for sample in counted_samples(shard, stop):
                if at >= first:
                    yield shard, sample
                at += 1
        except ShardError as error:
            problem = error.problem
        # Behind the error, whose frames hold the bytes of the sample at which it came.
        if problem is not None:
            for _ in range(max(at, first), stop):
                yield shard, problem


def decode(
    shard: Shard, sample: Sample, shape: tuple[int, int, int] | None, num_classes: int
) -> tuple[np.ndarray, int]:
    """Return a sample's image `(C, H, W)` uint8 and its label.

    Args:
        shard: the sample's shard.
        sample: the sample.
        shape: required shape of the image; None takes any.
        num_classes: labels run from 0 to one less.

    Raises:
        ShardError: if a part is not allowed, the image is missing, cannot be decoded or has another
            shape, or the label is missing or out of range.
    """
    _check_parts(shard, sample)
    if shape is not None:
        check_size(shard, sample, shape)
    return _image(shard, sample, shape), _label(shard, sample, num_classes)


def slim(shard: Shard, sample: Sample, shape: tuple[int, int, int], num_classes: int) -> Sample:
    """Return a sample without what is not needed, in at most about twice the bytes of its pixels.

    Thousands of samples are held undecoded, so a small shard that unpacks to large ones could
    otherwise fill the memory.

    Raises:
        ShardError: as `decode` does, where a part may not be there or the sample is large.
    """
    _check_parts(shard, sample)
    needed = Sample(sample.key, {k: d for k, d in sample.parts.items() if k in NEEDED_PARTS})
    if sum(map(len, needed.parts.values())) <= 2 * math.prod(shape) + SLIM_EXTRA:
        return needed
    image, label = decode(shard, needed, shape, num_classes)
    pixels, png = image.transpose(1, 2, 0), io.BytesIO()
    Image.fromarray(pixels[..., 0] if shape[0] == 1 else pixels).save(png, "PNG")
    return Sample(sample.key, {"png": png.getvalue(), "cls": str(label).encode()})


def _check_parts(shard: Shard, sample: Sample) -> None:
    for part in sample.parts:
        if part.rsplit(".", 1)[-1] not in IMAGE_PARTS + OTHER_PARTS:
            raise _unusable(
                shard,
                sample,
                f"has the member {sample.key}.{part}; only {', '.join(IMAGE_PARTS + OTHER_PARTS)} "
                "are read, because others may run code, so write the shard without it",
            )


def check_size(shard: Shard, sample: Sample, shape: tuple[int, int, int]) -> None:
    """Check that a sample is not larger than an image of shape `(C, H, W)` and a label can be.

    Raises:
        ShardError: if it is larger.
    """
    size = sum(len(data) for part, data in sample.parts.items() if part in NEEDED_PARTS)
    if size > 4 * math.prod(shape) + IMAGE_EXTRA:
        raise _unusable(
            shard,
            sample,
            f"has {size} bytes, which no image of shape {shape} needs; write the shard anew",
        )


@contextmanager
def _opened(shard: Shard) -> Iterator[BinaryIO]:
    """Open a shard after a check of its sum and of what the index claims of it, decompressed."""
    with _local_copy(shard) as file:
        if shard.sha256 is not None and _sha256(file) != shard.sha256:
            raise _unreadable(
                shard, "does not have the sha256 that the index gives; copy the set again"
            )
        compressed = file.read(2) == GZIP
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        room = size * (DEFLATE if compressed else 1) // BLOCK
        if shard.samples > room >= 2:  # what is too short for a tar is told when it is read
            found = f"at most {room} (it has {size} bytes)"
            raise _unreadable(shard, _miscounted(shard, found))
        yield (
            io.BufferedReader(gzip.GzipFile(fileobj=file, mode="rb"), 1 << 20)
            if compressed
            else file
        )


@contextmanager
def _local_copy(shard: Shard) -> Iterator[BinaryIO]:
    """Yield a seekable file, whatever the source."""
    check_address(shard.url, allow_commands=shard.allow_commands)
    if not is_remote(shard.url):
        path = Path(shard.url)
        if path.exists() and not path.is_file():  # the opening of a pipe would wait for a writer
            raise OSError("it is no regular file")
        with path.open("rb") as file:
            yield file
        return
    limit = LARGEST_SHARD if shard.size is None else shard.size
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as copy:
        # Not with WebDataset, whose curl passes on a server's error page as if it were the shard.
        if is_http(shard.url):
            copy_from(shard.url, copy, limit)
        else:
            with gopen(shard.url) as source:
                while block := source.read(1 << 20):
                    copy.write(block)
                    if copy.tell() > limit:
                        raise OSError(f"its program gives more than {limit} bytes")
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
        if found == shape or (shape is None and image.height * image.width <= LARGEST_IMAGE):
            image.load()
    except Exception as error:  # Pillow's decoders raise many types on damaged input
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
    if shape is None and image.height * image.width > LARGEST_IMAGE:
        raise _unusable(
            shard,
            sample,
            f"has {image.height} x {image.width} pixels; {LARGEST_IMAGE} in all are allowed, so "
            "make it smaller",
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
