"""The index of a set: its classes, its splits and their shards."""

import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from effconv_data.io.addresses import check_address, is_remote
from effconv_data.io.read_json import decode_json, read_limited
from effconv_data.io.web import WebError, get

__all__ = ["LARGEST_IMAGE", "MOST_CLASSES", "MOST_SAMPLES", "Index", "Shard", "read_index"]

LARGEST_INDEX = 1 << 24
"""Bytes of an index.json."""
LARGEST_IMAGE = 1 << 24
"""Pixels of an image; one that has more hardly fits into a member of a shard."""
MOST_SAMPLES = 10_000_000
"""Of one shard."""
MOST_SAMPLES_OF_A_SPLIT = 1 << 31
MOST_CLASSES = 1_000_000
HALF_CHARACTER = re.compile(rb"(?<!\\)(?<!\\ud[89ab][0-9a-f][0-9a-f])\\udc([89a-f][0-9a-f])")
"""How version 0.2 wrote a byte of a folder's name that was not UTF-8; it is read as `\\xNN`."""


class Shard(NamedTuple):
    """One tar file of a split."""

    url: str
    """A path or an http(s) address; with `allow_commands` also `pipe:...` or another address."""
    samples: int
    """Number of samples."""
    sha256: str | None
    """sha256 of the file as stored; None if the index has none."""
    size: int | None = None
    """Bytes of the file, which no server may exceed; None where the index does not say."""
    allow_commands: bool = False
    """Whether a program may be run to read `url`."""


class Index(NamedTuple):
    """A set of shards."""

    name: str
    """Name of the set: from its index, or else its folder."""
    classes: tuple[str, ...]
    """Class names in label order."""
    splits: Mapping[str, tuple[Shard, ...]]
    """The shards of each split, in order."""
    image_shape: tuple[int, int, int] | None
    """`(C, H, W)`; None if the index lacks it."""
    mean: tuple[float, ...] | None
    """`(C,)` mean of the pixels of the train split on the scale 0..1, or None."""
    std: tuple[float, ...] | None
    """`(C,)` standard deviation, as `mean`."""


# The schema of an index.json; what else it holds is not read. A name with a folder in it could
# point out of the set.
_Name = Annotated[str, Meta(max_length=1000)]
_File = Annotated[
    str, Meta(max_length=255, pattern=r"^[^/\x00-\x1f\x7f]+\.tar(\.(gz|bz2|xz|zst))?\Z")
]
_Side = Annotated[int, Meta(ge=1, le=LARGEST_IMAGE)]
_Statistic = Annotated[list[Annotated[float, Meta(ge=0, le=1)]], Meta(min_length=1, max_length=4)]


class _Row(msgspec.Struct):
    file: _File
    samples: Annotated[int, Meta(ge=1, le=MOST_SAMPLES)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None
    bytes: Annotated[int, Meta(ge=1)] | None = None


class _Split(msgspec.Struct):
    samples: Annotated[int, Meta(ge=1, le=MOST_SAMPLES_OF_A_SPLIT)]
    shards: Annotated[list[_Row], Meta(min_length=1)]


class _Content(msgspec.Struct):
    classes: Annotated[list[_Name], Meta(min_length=1, max_length=MOST_CLASSES)]
    splits: Annotated[dict[_Name, _Split], Meta(min_length=1, max_length=100)]
    name: _Name | None = None
    image_shape: tuple[Annotated[int, Meta(ge=1, le=4)], _Side, _Side] | None = None
    mean: _Statistic | None = None
    std: _Statistic | None = None


def read_index(folder: str | Path) -> Index:
    """Read a set's `index.json`.

    What it claims is checked before anything is done for it: at most 16 MiB, 1,000,000 classes,
    10,000,000 samples a shard, 16,777,216 pixels an image.

    Args:
        folder: a folder, or the `http(s)://` address of one.

    Raises:
        ConnectionError: if a server does not give it.
        FileNotFoundError: if there is no index.
        ValueError: if it is malformed, the sentence says where; or if the address is not http(s).
    """
    folder = str(folder).rstrip("/")
    check_address(folder)
    path = f"{folder}/index.json"
    text = HALF_CHARACTER.sub(rb"\\\\x\1", _read(path))
    content = decode_json(text, _Content, what=path)

    def check(holds: bool, problem: str) -> None:
        if not holds:
            raise ValueError(f"{path} {problem}; write the index again from the shards")

    check(len(set(content.classes)) == len(content.classes), "names a class twice")
    if content.image_shape is not None:
        C, H, W = content.image_shape
        check(
            H * W <= LARGEST_IMAGE,
            f"has the image shape {(C, H, W)}, more than {LARGEST_IMAGE} pixels",
        )
    check((content.mean is None) == (content.std is None), "has only one of 'mean' and 'std'")
    for split, entry in content.splits.items():
        files = {row.file for row in entry.shards}
        counted = sum(row.samples for row in entry.shards)
        check(len(files) == len(entry.shards), f"names a shard of split {split!r} twice")
        check(
            entry.samples == counted,
            f"gives split {split!r} {entry.samples} samples but its shards {counted}",
        )
    usual = folder.rsplit("/", 1)[-1] if is_remote(folder) else Path(folder).resolve().name
    return Index(
        usual if content.name is None else content.name,
        tuple(content.classes),
        {
            split: tuple(_shard(folder, row) for row in entry.shards)
            for split, entry in content.splits.items()
        },
        content.image_shape,
        None if content.mean is None else tuple(content.mean),
        None if content.std is None else tuple(content.std),
    )


def _shard(folder: str, row: _Row) -> Shard:
    file = urllib.parse.quote(row.file) if is_remote(folder) else row.file
    return Shard(f"{folder}/{file}", row.samples, row.sha256, row.bytes)


def _read(path: str) -> bytes:
    missing = f"{path} does not exist; pass a folder of shards with an index.json, or put one there"
    if not is_remote(path):
        try:
            return read_limited(path, LARGEST_INDEX)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(missing) from None
    try:
        return get(path, LARGEST_INDEX)
    except WebError as error:
        if error.status in (404, 410):
            raise FileNotFoundError(f"{missing} ({error})") from error
        raise ConnectionError(f"{path} cannot be read ({error}); try again later") from error
