"""Find, check and read the files of official archives, packed or unpacked."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from effconv_data.io.packed import unpacked
from effconv_data.prepare.types import OnProgress, Progress
from effconv_data.shards.tar import tar_members

__all__ = ["Layout", "Published", "check_labels", "find", "read_files", "record", "sums"]

CHUNK = 1 << 20
LARGEST_FILE = 1 << 28
"""Bytes of a file in an archive; the largest that is read, of STL-10, has 221 million."""


class Published(NamedTuple):
    """A file as its authors publish it."""

    file: str
    url: str
    md5: str
    largest: int = 1 << 28
    """Bytes that a server may send for it."""


class Layout(NamedTuple):
    """An archive that holds one folder of files."""

    archive: Published
    folder: str


def record(
    path: Path, published: Published | None, *, checksum: bool, on_progress: OnProgress
) -> dict[str, str | int]:
    """Return a file's name and sha256 for the index, after checking its published md5.

    Args:
        path: the file.
        published: the published file; None if it is not published in this form.
        checksum: whether a checksum that is not the published one is an error.
        on_progress: called with the number of bytes read.

    Raises:
        ValueError: if the file's md5 is not the published one and `checksum` is set.
    """
    md5, sha256 = sums(path, on_progress)
    if checksum and published is not None and md5 != published.md5:
        raise ValueError(
            f"{path} has the md5 {md5} but the official file has {published.md5}; get the file "
            "again, or switch the check off (checksum=False, --no-checksum) if it was changed on "
            "purpose"
        )
    return {"file": path.name, "sha256": sha256}


def sums(path: Path, on_progress: OnProgress) -> tuple[str, str]:
    """Return a file's md5 and sha256."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    done, total = 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
            done += len(chunk)
            on_progress(Progress(f"checking {path.name}", done, total, "bytes"))
    return md5.hexdigest(), sha256.hexdigest()


def find(source: Path, names: Sequence[str], remedy: str) -> Path:
    """Return the first of several names that is a file in a folder.

    Raises:
        FileNotFoundError: if none is; the message ends with `remedy`.
    """
    for name in names:
        if (source / name).is_file():
            return source / name
    raise FileNotFoundError(f"{source} has no file {' or '.join(names)}; {remedy}")


def place(source: Path, layout: Layout, names: Sequence[str]) -> Path | None:
    """Return the archive, or the folder that has any of the names; None if there is neither."""
    packed = layout.archive.file
    for file in (packed, *(packed.removesuffix(".gz") + end for end in ("", ".bz2", ".xz"))):
        if (source / file).is_file():
            return source / file
    for folder in (source / layout.folder, source):
        if any((folder / name).is_file() for name in names):
            return folder
    return None


def read_files(
    source: Path,
    layouts: Sequence[Layout],
    names: Sequence[Sequence[str]],
    *,
    checksum: bool,
    on_progress: OnProgress,
) -> tuple[Layout, list[bytes], list[dict[str, str | int]]]:
    """Read files of the first layout that exists, from the archive or from its folder.

    Nothing is unpacked to disk: the members of an archive are read in place.

    Args:
        source: the folder with the archive, or with its folder, or that folder itself.
        layouts: layouts to look for, in order.
        names: the files to read for each layout.
        checksum: whether an archive whose md5 is not the published one is an error.
        on_progress: called with the number of bytes read.

    Returns:
        The layout found, the contents of its files in the order of their names, and a record of
        the read files for the index.

    Raises:
        FileNotFoundError: if there is no layout, or a file of it is missing.
        ValueError: if an archive is damaged or is not the official one.
    """
    for layout, wanted in zip(layouts, names, strict=True):
        found = place(source, layout, wanted)
        if found is None:
            continue
        if found.is_dir():
            remedy = (
                f"unpack {layout.archive.file} again, or prepare only the other split (--splits)"
            )
            paths = [find(found, [name], remedy) for name in wanted]
            records = [
                record(path, None, checksum=checksum, on_progress=on_progress) for path in paths
            ]
            return layout, [path.read_bytes() for path in paths], records
        records = [record(found, layout.archive, checksum=checksum, on_progress=on_progress)]
        members = _read_members(found, layout.folder, wanted, on_progress)
        return layout, [members[name] for name in wanted], records
    archives = " or ".join(layout.archive.file for layout in layouts)
    raise FileNotFoundError(
        f"{source} holds neither {archives} nor what is in it; pass the folder that holds the "
        "archive, or no source at all to download it"
    )


def _read_members(
    path: Path, folder: str, names: Sequence[str], on_progress: OnProgress
) -> dict[str, bytes]:
    """Read files from an archive, in one pass over it."""
    wanted = {f"{folder}/{name}": name for name in names}
    contents: dict[str, bytes] = {}
    total = path.stat().st_size

    def is_wanted(member: str) -> bool:
        on_progress(Progress(f"reading {path.name}", file.tell(), total, "bytes"))
        return member.removeprefix("./") in wanted

    try:
        with path.open("rb") as file:
            _, stream = unpacked(file)
            for member, data in tar_members(stream, largest=LARGEST_FILE, wanted=is_wanted):
                contents[wanted[member.removeprefix("./")]] = data
                if len(contents) == len(wanted):
                    # The rest is not needed.
                    on_progress(Progress(f"reading {path.name}", total, total, "bytes"))
                    break
    except Exception as error:  # tar and what unpacks it each raise their own kinds
        raise ValueError(f"archive {path} cannot be read ({error}); get it again") from error
    missing = [member for member, name in wanted.items() if name not in contents]
    if missing:
        raise FileNotFoundError(
            f"archive {path} has no member {missing[0]}; get the official archive again, or "
            "prepare only the other split (--splits)"
        )
    return contents


def check_labels(labels: object, images: int, where: str, first: int, last: int) -> np.ndarray:
    """Convert labels from `first` to `last` to indices from 0, `(N,)` int64.

    Args:
        labels: a list of integers or an array.
        images: number of images.
        where: the labels' file, for messages.
        first: the smallest label.
        last: the largest label.

    Raises:
        ValueError: if they are not integers, not one for each image or out of range.
    """
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        # Of arbitrary size, until the range is checked.
        labels = np.array(labels, dtype=object)
    elif not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise ValueError(f"{where} has labels that are not rows of integers; get the file again")
    if len(labels) != images:
        raise ValueError(
            f"{where} has {len(labels)} labels for {images} images; get the files again, from one "
            "set"
        )
    wrong = np.flatnonzero((labels < first) | (labels > last))
    if len(wrong):
        raise ValueError(
            f"{where} gives sample {wrong[0]} the label {labels[wrong[0]]}; labels run from "
            f"{first} to {last}, so get the file again"
        )
    return labels.astype(np.int64) - first
