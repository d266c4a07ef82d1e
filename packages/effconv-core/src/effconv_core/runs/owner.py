"""Whose a folder is: what lets a command write into it, and all that it may delete there.

A run's folder holds `effconv-run.json`, written before anything else. Folders of earlier releases
lack it and are known by their `config.json`, of the shape that only a run writes. Whatever else
lies in a run's folder is not ours, and stays.
"""

import os
import re
import secrets
import stat
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from effconv_core.io.atomic import PARTIAL, remove_empty_folder, remove_file, write_text
from effconv_core.io.read_json import read_json

CLAIMS = ".claims"  # of releases before 0.4.0; nothing reads it
LOCK = ".effconv-run.lock"
MARKER = "effconv-run.json"
SCHEMA = 1
TENSORBOARD = "tensorboard"

STATES = (
    r"(search|train|baseline|no-pooling|predefined-pooling|scale-invariant|one-resolution"
    r"|threshold-[0-9.e+-]+)(\.previous)?\.safetensors"
)
WRITTEN = re.compile(
    r"(config|plan|result|failed|mixing|test)\.json|metrics\.jsonl|report\.(md|html)"
    r"|(sizes|mixing|course)\.png|(cnn|flexnet|kernels)\.safetensors"
    rf"|{STATES}"
)
"""Names of all files that any run writes into its folder, beside the marker."""
BEFORE = re.compile(r"(?P<name>.+?)\.(partial|spare)")
"""Temporary names of earlier releases."""
WITHIN = {
    CLAIMS: re.compile(r"[0-9]{6,}\.(json|released)"),
    TENSORBOARD: re.compile(r"events\.out\.tfevents\..+"),
}
"""Folders within a run's, and the names of all files that it writes there."""


class Owner(Enum):
    """Whose a folder is."""

    NOBODY = "nobody"
    """It is missing, or holds nothing but the traces of a run that had hardly begun."""
    RUN = "run"
    OTHER = "other"


class Marker(msgspec.Struct):
    """What `effconv-run.json` says."""

    kind: Literal["run"]
    schema: Annotated[int, msgspec.Meta(ge=1)]
    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class _Config(msgspec.Struct):
    """What `config.json` of a run of any release has at least."""

    settings: dict[str, Any]
    environment: dict[str, str]


class _Failure(msgspec.Struct):
    """What `failed.json` of a run of any release has."""

    error: str
    traceback: str


def check_place(folder: Path) -> Owner:
    """Return whose a folder is, after a look at whether a run may be kept there.

    A link to a folder counts as the folder. Nothing is changed.

    Raises:
        FileExistsError: if there is a file, a link that leads nowhere, or a folder that holds
            something and is not a run's; the message names it.
        ValueError: if a later release has written it.
    """
    owner = owner_of(folder)
    if owner is Owner.OTHER:
        raise FileExistsError(f"{folder} {_what_is_there(folder)}; pass another name or place")
    for name in (CLAIMS, LOCK, MARKER):
        if (folder / name).is_symlink():
            raise FileExistsError(
                f"{folder / name} is a link, which no run makes; delete it, or pass another name"
            )
    for path in folder.iterdir() if owner is Owner.RUN else ():
        is_file = not path.is_dir() and not path.is_symlink()
        if (WRITTEN.fullmatch(path.name) and _is_folder(path)) or (
            path.name == TENSORBOARD and is_file
        ):
            raise FileExistsError(
                f"{path} has a name that a run needs; move it, or pass another name for the run"
            )
    return owner


def owner_of(folder: Path) -> Owner:
    """Return whose a folder is; nothing is changed.

    Raises:
        ValueError: if a later release has written it.
        OSError: if it cannot be looked at.
    """
    if not os.path.lexists(folder):
        return Owner.NOBODY
    if not folder.is_dir():
        return Owner.OTHER
    if _has(folder / MARKER, Marker):
        marker = read_json(folder / MARKER, Marker)
        if marker.schema > SCHEMA:
            raise ValueError(
                f"{folder} has schema {marker.schema}; this version reads {SCHEMA}, so update "
                "effconv-core"
            )
        # A copy of a marker makes no run of a folder with somebody's settings.
        config = folder / "config.json"
        return (
            Owner.RUN if not os.path.lexists(config) or _leads_to_settings(config) else Owner.OTHER
        )
    if _is_of_an_earlier_release(folder):
        return Owner.RUN
    rest = [path for path in folder.iterdir() if not _is_trace(path)]
    return Owner.OTHER if rest else Owner.NOBODY


def mark(folder: Path) -> None:
    """Make a run's folder, or make an empty one or one of an earlier release known as a run's.

    Raises:
        FileExistsError: as `check_place` does.
        OSError: if it cannot be made.
    """
    check_place(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARKER).exists():
        _write_marker(folder)


def _write_marker(folder: Path) -> None:
    marker = Marker("run", SCHEMA, secrets.token_hex(16))
    write_text(folder / MARKER, msgspec.json.encode(marker).decode() + "\n")


def run_id(folder: Path) -> str:
    """Return the random name of a run, which no other has, from the marker in its folder."""
    return read_json(folder / MARKER, Marker).id


def clear(folder: Path) -> None:
    """Delete what a run has written into its folder, but for the claims; the next has another id.

    A link is deleted itself, and never what it leads to. Foreign files stay. The settings go
    first, so that a run which was deleted by half is not gone on with.

    Raises:
        FileExistsError: if the folder is not a run's.
    """
    if check_place(folder) is not Owner.RUN:
        return
    mark(folder)
    for path in sorted(written(folder), key=lambda path: path.name != "config.json"):
        remove_file(path)
    if not (folder / TENSORBOARD).is_symlink():
        remove_empty_folder(folder / TENSORBOARD)
    _write_marker(folder)


def remove_leftovers_of_run(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a run's folder.

    Links under a name that a run writes are deleted too where they lead nowhere; elsewhere a
    checkpoint in the place of one is refused.
    """
    for path in written(folder):
        temporary = not WRITTEN.fullmatch(path.name) and path.parent == folder
        if path.name != TENSORBOARD and (temporary or (path.is_symlink() and not path.exists())):
            remove_file(path)


def written(folder: Path) -> Iterator[Path]:
    """Yield the files that a run has written into its folder, but for the marker and the claims."""
    for path in list(folder.iterdir()):
        if path.name == TENSORBOARD:
            if path.is_symlink():
                yield path
            elif path.is_dir():
                events = list(path.iterdir())
                yield from (event for event in events if _is_written(event, WITHIN[TENSORBOARD]))
        elif _is_written(path, WRITTEN):
            yield path


def _is_written(path: Path, names: re.Pattern[str]) -> bool:
    """Return whether a path is a file, or a link, under a name that a run writes."""
    temporary = PARTIAL.fullmatch(path.name) or BEFORE.fullmatch(path.name)
    name = temporary["name"] if temporary and not names.fullmatch(path.name) else path.name
    if temporary and name == MARKER:
        return not _is_folder(path)
    return bool(names.fullmatch(name)) and not _is_folder(path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_of_an_earlier_release(folder: Path) -> bool:
    config = folder / "config.json"
    if _has(config, _Config):
        # Each release has written these three of the environment.
        return {"device", "python", "torch"} <= read_json(config, _Config).environment.keys()
    # A run of a list that failed before it began.
    rest = {path.name for path in folder.iterdir() if not _is_trace(path)}
    return rest == {"failed.json"} and _has(folder / "failed.json", _Failure)


def _leads_to_settings(config: Path) -> bool:
    """Return whether `config.json` is that of a run, or a link, which is replaced and not read."""
    return config.is_symlink() or _has(config, _Config)


def _has(path: Path, kind: type) -> bool:
    """Return whether there is a file, and no link, of a schema."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        read_json(path, kind)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _is_trace(path: Path) -> bool:
    """Return whether a path is what a process leaves that was killed while it began a run."""
    if path.name == LOCK:
        return not (_is_folder(path) or path.is_symlink())
    if path.name == CLAIMS:
        return _is_folder(path) and all(
            _is_written(claim, WITHIN[CLAIMS]) for claim in path.iterdir()
        )
    if not (PARTIAL.fullmatch(path.name) or path.name == "config.json.partial"):
        return False
    name = path.name if path.name.startswith(".") else f".{path.name}"
    return name.startswith((f".{MARKER}.", ".config.json.", ".failed.json.")) and not (
        _is_folder(path) or path.is_symlink()
    )


def _what_is_there(folder: Path) -> str:
    if folder.is_symlink() and not folder.exists():
        return "is a link that leads nowhere"
    if not folder.is_dir():
        return "is not a folder"
    names = sorted(path.name for path in folder.iterdir())
    return f"holds {ascii(names[0])[1:-1][:80]} and no run, so it is left as it is"
