"""What of a set is complete: the rows of finished shards, kept beside them until the index is.

A set being written is a folder with `.progress.jsonl`: a first line with all settings, then a line
for each finished shard. A finished set has an `index.json` and no such file.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows, where two runs into one folder are not kept apart
    fcntl = None

__all__ = ["Journal", "begin", "check_place", "claimed", "write_whole"]

INDEX, PROGRESS, LOCK = "index.json", ".progress.jsonl", ".lock"
SHARD = re.compile(r"[a-z]+-[0-9]{5,}\.tar(\.gz)?")
PARTIAL = ".partial"
Row = dict[str, Any]


class Journal:
    """The rows of finished shards by file, and the file to which rows are added.

    Attributes:
        rows: by shard file.
    """

    def __init__(self, folder: Path, rows: Mapping[str, Row]) -> None:
        self.rows = dict(rows)
        self._path = folder / PROGRESS

    def add(self, row: Row) -> None:
        """Note a shard that is complete on disk."""
        self.rows[row["file"]] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Remove the file, once the index is there."""
        self._path.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and give it its own when all is on the disk."""
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def check_place(folder: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError unless a set may be written, or go on being written, into a folder.

    Raises:
        FileExistsError: if there is a finished set and `overwrite` is not set, or anything else
            that is no set of shards.
        NotADirectoryError: if it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; pass a folder that is new or empty")
    if (folder / INDEX).exists():
        if not _is_index(folder / INDEX):
            raise FileExistsError(
                f"{folder / INDEX} is no index of shards; pass a folder that is new or empty"
            )
        if not overwrite:
            raise FileExistsError(
                f"{folder} holds a finished set; pass another folder, or overwrite=True "
                "(--overwrite) to replace it"
            )
    elif folder.exists() and not (folder / PROGRESS).exists():
        # What a run leaves that is killed before its first line is written.
        foreign = {path.name for path in folder.iterdir()} - {LOCK, PROGRESS + PARTIAL}
        if foreign:
            raise FileExistsError(
                f"{folder} holds {min(foreign)}, which is no part of an interrupted run; pass a "
                "folder that is new or empty"
            )


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the folder if need be and keep other processes from writing a set into it.

    Raises:
        FileExistsError: if another process does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("a") as file:
        try:
            if fcntl is not None:
                # This kind of lock ends with the process and does not pass to forked children.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FileExistsError(
                f"{folder} is being written by another process; wait for it or stop it"
            ) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def begin(folder: Path, settings: Row, *, overwrite: bool) -> Journal:
    """Take up the interrupted run of a folder, or start afresh.

    A row is trusted if its shard still has the size and sum that it says; every other shard is
    to be written again.

    Raises:
        FileExistsError: if `check_place` raises it, or if the interrupted run had other settings
            and `overwrite` is not set.
    """
    check_place(folder, overwrite=overwrite)
    trusted: dict[str, Row] = {}
    if (folder / PROGRESS).exists() and not (folder / INDEX).exists():
        before, rows = _read(folder / PROGRESS)
        if before == settings:
            trusted = {row["file"]: row for row in rows if _complete(folder, row)}
        elif not overwrite:
            other = ", ".join(key for key in settings if before.get(key) != settings[key])
            raise FileExistsError(
                f"{folder} holds an interrupted run with another {other}; repeat that run, pass "
                "another folder, or overwrite=True (--overwrite) to begin anew"
            )
    # In this order a kill leaves a set, or a run to take up: never shards that nothing claims.
    lines = [json.dumps(line) for line in (settings, *trusted.values())]
    write_whole(folder / PROGRESS, ("\n".join(lines) + "\n").encode())
    (folder / INDEX).unlink(missing_ok=True)
    for path in folder.iterdir():
        name = path.name.removesuffix(PARTIAL)
        if (SHARD.fullmatch(name) and path.name not in trusted) or path.name == INDEX + PARTIAL:
            path.unlink()
    return Journal(folder, trusted)


def _read(path: Path) -> tuple[Row, list[Row]]:
    """Give the settings and the rows; the line that a killed run left unfinished is dropped."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    settings, *rows = rows or [{}]
    return settings, rows


def _complete(folder: Path, row: Row) -> bool:
    path = folder / row["file"]
    if not path.is_file() or path.stat().st_size != row["bytes"]:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]


def _is_index(path: Path) -> bool:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(index, dict) and {"classes", "splits"} <= index.keys()
