"""Journal of a set in progress: the rows of finished shards, kept until the index is written.

A set being written is a folder with `.progress.jsonl`: a first line with all settings, then a line
for each finished shard. A finished set has an `index.json` and no such file.
"""

import hashlib
import itertools
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

try:
    import fcntl
except ImportError:  # not on Windows, where two runs into one folder are not excluded
    fcntl = None

from effconv_data.io.atomic import (
    PARTIAL,
    append_text,
    opened_for_appending,
    remove_leftovers,
    write_bytes,
)
from effconv_data.io.read_json import decode_json, read_json
from effconv_data.shards.index import LARGEST_INDEX

__all__ = ["Journal", "begin", "check_place", "claimed"]

INDEX, PROGRESS, LOCK = "index.json", ".progress.jsonl", ".lock"
SHARD = re.compile(r"(train|val|test)-[0-9]{5,}\.tar")
EARLIER_PARTIAL = ".partial"
"""Behind the names of what runs of version 0.2 and before left unfinished."""
LONGEST_LINE = 1 << 24
"""Bytes of a line of the progress."""
Row = dict[str, Any]


class _Settings(msgspec.Struct):
    """The first line of a progress of ours; the rest of it is compared, not used."""

    made_by: Annotated[str, Meta(pattern="^effconv-data ")]
    splits: dict[str, list[int]]


class _Made(msgspec.Struct):
    """An index of ours."""

    made_by: Annotated[str, Meta(pattern="^effconv-data ")]
    classes: list[str]
    splits: dict[str, dict[str, Any]]


_Count = Annotated[int, Meta(ge=0)]


class _Row(msgspec.Struct):
    file: str
    samples: Annotated[int, Meta(ge=1)]
    bytes: _Count
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    class_counts: list[_Count]
    histogram: list[Annotated[list[_Count], Meta(min_length=256, max_length=256)]]


class Journal:
    """The rows of finished shards by file, and the file to which rows are appended.

    Attributes:
        rows: row by shard file.
    """

    def __init__(self, folder: Path, rows: Mapping[str, Row]) -> None:
        self.rows = dict(rows)
        self._path = folder / PROGRESS

    def add(self, row: Row) -> None:
        """Append a shard that is complete on disk."""
        self.rows[row["file"]] = row
        append_text(self._path, json.dumps(row) + "\n")

    def close(self) -> None:
        """Remove the file, once the index exists."""
        self._path.unlink()


def check_place(folder: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError unless a set may be written, or resumed, in a folder.

    Raises:
        FileExistsError: if there is a finished set and `overwrite` is not set, or anything else
            that is not a set of shards.
        NotADirectoryError: if it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; pass a folder that is new or empty")
    if os.path.lexists(folder / INDEX):
        if not _is_index(folder / INDEX):
            raise FileExistsError(
                f"{folder / INDEX} is not an index that effconv-data wrote; pass a folder "
                "that is new or empty"
            )
        if not overwrite:
            raise FileExistsError(
                f"{folder} holds a finished set; pass another folder, or overwrite=True "
                "(--overwrite) to replace it"
            )
    elif os.path.lexists(folder / PROGRESS):
        if _settings(folder / PROGRESS) is None:
            raise FileExistsError(
                f"{folder / PROGRESS} was not written by effconv-data; pass a folder that is new "
                "or empty"
            )
    elif folder.exists():
        foreign = {path.name for path in folder.iterdir() if not _of_a_killed_run(path)}
        if foreign:
            raise FileExistsError(
                f"{folder} holds {min(foreign)}, which is not part of an interrupted run; pass a "
                "folder that is new or empty"
            )


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Create the folder if needed and lock it against other processes writing a set.

    Raises:
        FileExistsError: if another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with opened_for_appending(path) as file:
        try:
            if fcntl is not None:
                # This kind of lock ends with the process and is not inherited by forked children.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(path).st_ino != os.fstat(file.fileno()).st_ino:  # noqa: PTH116
                    raise OSError("the process that had it has just removed it")
        except OSError as error:
            raise FileExistsError(
                f"{folder} is being written by another process; wait for it or stop it"
            ) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def begin(folder: Path, settings: Row, planned: Mapping[str, int], *, overwrite: bool) -> Journal:
    """Resume the interrupted run of a folder, or start a new one.

    A row is trusted if it is of a shard that is planned and that still has the size and sum that
    the row says; every other shard is to be written again.

    Args:
        folder: its folder.
        settings: all that decides what is written.
        planned: the samples of each shard to be written, by its file.
        overwrite: whether a finished set, or a run with other settings, is replaced.

    Raises:
        FileExistsError: if `check_place` raises it, or if the interrupted run had other settings
            and `overwrite` is not set.
    """
    check_place(folder, overwrite=overwrite)
    trusted: dict[str, Row] = {}
    if (folder / PROGRESS).exists() and not (folder / INDEX).exists():
        before = _settings(folder / PROGRESS) or {}
        if before == settings:
            rows = _rows(folder / PROGRESS, settings, planned)
            trusted = {row["file"]: row for row in rows if _complete(folder, row)}
        elif not overwrite:
            other = ", ".join(key for key in settings if before.get(key) != settings[key])
            raise FileExistsError(
                f"{folder} holds an interrupted run with another {other}; repeat that run, pass "
                "another folder, or overwrite=True (--overwrite) to begin again"
            )
    # In this order a kill leaves a set, or a run to resume: never shards without a journal.
    lines = [json.dumps(line) for line in (settings, *trusted.values())]
    write_bytes(folder / PROGRESS, ("\n".join(lines) + "\n").encode())
    (folder / INDEX).unlink(missing_ok=True)
    remove_leftovers(folder)
    for path in folder.iterdir():
        name = path.name.removesuffix(EARLIER_PARTIAL)
        ours = SHARD.fullmatch(name) or path.name == INDEX + EARLIER_PARTIAL
        if ours and path.name not in trusted and not path.is_dir():
            path.unlink()
    return Journal(folder, trusted)


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the whole lines of a file, one at a time, up to one that is too long."""
    with opened_for_appending(path) as file:  # which follows no link, and waits for no pipe
        file.seek(0)
        while (line := file.readline(LONGEST_LINE)).endswith(b"\n"):
            yield line


def _settings(path: Path) -> Row | None:
    """Read the first line of a progress; None if it is none of ours."""
    try:
        line = next(_lines(path), b"")
        decode_json(line, _Settings)
        return decode_json(line, Row)
    except ValueError:
        return None


def _rows(path: Path, settings: Row, planned: Mapping[str, int]) -> Iterator[Row]:
    """Yield the rows of shards that are planned; what a killed run left unfinished ends them.

    What is read is limited by the plan, not by the file, whoever wrote it.
    """
    C, H, W = settings["image_shape"]
    for line in itertools.islice(_lines(path), 1, 1 + len(planned)):
        try:
            row = decode_json(line, _Row)
        except ValueError:
            return
        samples = planned.get(row.file)
        pixels = [sum(values) for values in row.histogram]
        if (
            row.samples != samples
            or len(row.class_counts) != len(settings["classes"])
            or sum(row.class_counts) != samples
            or pixels != [samples * H * W] * C
            # Headers, label, and a PNG that is hardly larger than its pixels.
            or row.bytes > (1 << 16) + samples * (8192 + 2 * math.prod((C, H, W)))
        ):
            return
        yield msgspec.to_builtins(row)


def _complete(folder: Path, row: Row) -> bool:
    path = folder / row["file"]
    if not path.exists() or not stat.S_ISREG(path.lstat().st_mode):
        return False
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != row["bytes"]:
            return False
        digest = hashlib.sha256()
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest() == row["sha256"]


def _is_index(path: Path) -> bool:
    try:
        read_json(path, _Made, limit=LARGEST_INDEX)
    except (OSError, ValueError):
        return False
    return True


def _of_a_killed_run(path: Path) -> bool:
    """Return whether a run left a file that was killed before its first line was written."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    partial = PARTIAL.fullmatch(path.name)
    return (
        (path.name == LOCK and not path.lstat().st_size)
        or path.name == PROGRESS + EARLIER_PARTIAL
        or (partial is not None and partial["name"] == PROGRESS)
    )
