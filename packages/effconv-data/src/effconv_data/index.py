"""What a set consists of: its classes, its splits and their shards."""

import http.client
import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Index", "Shard", "read_index"]

TIMEOUT = 60
"""Seconds that a server may stay silent."""


class Shard(NamedTuple):
    """One tar of a split."""

    url: str
    """A path, or an address such as `https://...` or `pipe:...`."""
    samples: int
    """How many samples it holds."""
    sha256: str | None
    """Of the file as it lies there; None where the index gives none."""


class Index(NamedTuple):
    """A set of shards."""

    name: str
    """What the set is called: by its index, or else as its folder."""
    classes: tuple[str, ...]
    """Class names in label order."""
    splits: Mapping[str, tuple[Shard, ...]]
    """The shards of each split, in order."""
    image_shape: tuple[int, int, int] | None
    """`(C, H, W)`; None where the index does not give it."""
    mean: tuple[float, ...] | None
    """`(C,)` of the pixels of the train split on the scale 0..1, or None."""
    std: tuple[float, ...] | None
    """As `mean`."""


def is_remote(place: str) -> bool:
    """Tell an address, such as `https://...` or `pipe:...`, from a path."""
    return re.match(r"pipe:|[a-z][a-z0-9+.-]+://", place, re.IGNORECASE) is not None


def read_index(folder: str | Path) -> Index:
    """Read a set's `index.json`.

    Args:
        folder: a folder, or the `http(s)://` address of one.

    Raises:
        FileNotFoundError: if there is no index.
        ValueError: if it is malformed; the sentence says where.
    """
    folder = str(folder).rstrip("/")
    path = f"{folder}/index.json"

    def check(holds: object, problem: str) -> None:
        if not holds:
            raise ValueError(f"{path} {problem}; write the index anew from the shards")

    try:
        index = json.loads(_read_text(path))
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
    usual = folder.rsplit("/", 1)[-1] if is_remote(folder) else Path(folder).resolve().name
    name = index.get("name", usual)
    check(isinstance(name, str), f"has the name {name!r}, which is no text")
    shape = index.get("image_shape")
    check(
        shape is None or (_are(int, shape) and len(shape) == 3 and min(shape) > 0),
        f"has the image shape {shape!r}, which is not three positive integers (C, H, W)",
    )
    mean, std = index.get("mean"), index.get("std")
    for key, values in (("mean", mean), ("std", std)):
        check(
            values is None or (_are(int | float, values) and all(map(math.isfinite, values))),
            f"has {key} {values!r}, which is no list of finite numbers",
        )
    check((mean is None) == (std is None), "has only one of 'mean' and 'std'")
    return Index(
        name,
        tuple(classes),
        {split: _shards(folder, split, entry, check) for split, entry in splits.items()},
        None if shape is None else tuple(shape),
        None if mean is None else tuple(map(float, mean)),
        None if std is None else tuple(map(float, std)),
    )


def _read_text(path: str) -> str:
    missing = f"{path} does not exist; pass a folder of shards with an index.json, or put one there"
    if not is_remote(path):
        if not Path(path).is_file():
            raise FileNotFoundError(missing)
        return Path(path).read_text(encoding="utf-8")
    try:
        with urllib.request.urlopen(path, timeout=TIMEOUT) as response:
            return response.read().decode("utf-8")
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise FileNotFoundError(f"{missing} ({error})") from error
        raise ConnectionError(f"{path} cannot be read ({error}); try again later") from error
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"{path} cannot be read ({error}); try again later") from error


def _are(kind: Any, values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, kind) and not isinstance(value, bool) for value in values
    )


def _shards(
    folder: str, split: str, entry: Any, check: Callable[[object, str], None]
) -> tuple[Shard, ...]:
    rows = entry.get("shards") if isinstance(entry, dict) else None
    check(isinstance(rows, list) and rows, f"has no list of shards for split {split!r}")
    shards = tuple(_shard(folder, row, check) for row in rows)
    check(
        len({shard.url for shard in shards}) == len(shards),
        f"names a shard of split {split!r} twice",
    )
    counted = sum(shard.samples for shard in shards)
    check(
        entry.get("samples") == counted,
        f"gives split {split!r} {entry.get('samples')!r} samples but its shards {counted}",
    )
    return shards


def _shard(folder: str, row: Any, check: Callable[[object, str], None]) -> Shard:
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
    place = urllib.parse.quote(file) if is_remote(folder) else file
    return Shard(f"{folder}/{place}", samples, sha256)
