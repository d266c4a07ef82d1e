"""Lists of runs, a folder each: what a list holds, how one run of it is done, and how all stand.

A list is a JSON file; the folders of its runs lie beside it. A run has ended when its folder holds
`result.json`, or `failed.json` where it raised an error. It is locked while it is worked on.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from effconv_core.io.atomic import remove_file, write_text
from effconv_core.io.console import PlainConsole
from effconv_core.io.read_json import read_json
from effconv_core.runs.lock import ClaimedError, claim, is_held
from effconv_core.runs.names import check_name
from effconv_core.runs.owner import Owner, check_place, mark
from effconv_core.runs.writer import FAILED, RESULT
from rich.console import Console

PATIENCE = 30.0  # seconds until a run's folder counts as held: a killed holder takes a moment to go

Name = Annotated[str, msgspec.Meta(pattern=r"\A[^/\\.][^/\\]*\Z")]


@dataclass(frozen=True)
class Run:
    """One run: the function that executes or resumes it in its folder."""

    name: Name
    """Name of its folder."""
    function: str
    """`module:function`, called with the folder, a console and the arguments; writes the result."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the function; JSON values."""
    needs: tuple[Name, ...] = ()
    """Runs of the list that must end before it."""


class Failure(msgspec.Struct):
    """What `failed.json` holds."""

    error: str
    traceback: str = ""


def write_list(path: Path, runs: Sequence[Run], beside: Sequence[str] = ()) -> None:
    """Write a list, and reset its failed runs.

    Args:
        path: the list's file.
        runs: the runs.
        beside: names of other files that the command of this list writes into its folder.

    Raises:
        ValueError: if two runs have one name, one needs a run that is not in the list, or a name
            is none; before anything is written.
        FileExistsError: if a file that would be replaced, or the folder of a run, is not of a list.
    """
    names = {run.name for run in runs}
    if len(names) < len(runs):
        raise ValueError(
            f"{path} would hold {len(runs)} runs of {len(names)} names; name them apart"
        )
    missing = sorted({need for run in runs for need in run.needs} - names)
    if missing:
        raise ValueError(f"runs of {path} need {', '.join(missing)}, which it lacks; add them")
    for run in runs:
        check_name(run.name, f"a run of {path}")
    check_list_place(path, beside)
    waiting = [path.parent / run.name for run in runs if end(path.parent / run.name) != "finished"]
    ours = [folder for folder in waiting if check_place(folder) is Owner.RUN]
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in ours:
        remove_file(folder / FAILED)
    write_text(path, json.dumps([asdict(run) for run in runs], indent=1) + "\n")


def check_list_place(path: Path, beside: Sequence[str]) -> None:
    """Raise where files would be replaced that no list has made.

    Raises:
        FileExistsError: if there is such a file.
    """
    if os.path.lexists(path):
        try:
            ours = path.is_file() and not path.is_symlink() and bool(read_list(path))
        except ValueError:
            ours = False
        found = [] if ours else [path]
    else:
        found = [path.parent / name for name in beside if os.path.lexists(path.parent / name)]
    if found:
        raise FileExistsError(f"{found[0]} is not a list of runs or of one; name another folder")


def read_list(path: Path) -> list[Run]:
    """Read a list.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not a list of runs.
    """
    return read_json(path, list[Run])


def work(folder: Path, run: Run, console: Console | None = None) -> str | None:
    """Do a run, or what is left of it, in its folder, which is locked meanwhile.

    Args:
        folder: of the run.
        run: what is to be done; if it has ended, nothing is.
        console: where the run shows what it does; the standard output when None.

    Returns:
        None once the run has ended, finished or failed; else who holds its folder.
    """
    console, begun = console or PlainConsole(), _is_begun(folder)
    if end(folder):
        return None
    mark(folder)
    try:
        with claim(folder, PATIENCE):
            if not end(folder):  # it may have ended while this process waited for the lock
                console.print(run.name + (" goes on" if begun else ""))
                _do(folder, run, console)
    except ClaimedError as error:
        return str(error)
    return None


def _do(folder: Path, run: Run, console: Console) -> None:
    _forget_what_was_compiled()
    try:
        module, _, name = run.function.partition(":")
        getattr(importlib.import_module(module), name)(folder, console, **run.arguments)
        if not (folder / RESULT).exists():
            raise RuntimeError(f"{run.function} ended without writing {folder / RESULT}")
    except Exception as error:  # the other runs are still worth executing
        fail(folder, f"{type(error).__name__}: {error}", traceback.format_exc())


def _forget_what_was_compiled() -> None:
    """Clear compiled functions, so that a run compiles as if nothing ran before it in its process.

    PyTorch compiles a function, such as a network's forward, for eight kinds of arguments, such as
    networks of eight plans, and runs it eagerly for all further ones.
    """
    if "torch._dynamo" in sys.modules:  # before it is imported, which is slow, nothing was compiled
        torch.compiler.reset()


def fail(folder: Path, error: str, trace: str = "") -> None:
    """Write that a run has failed, which ends it."""
    mark(folder)
    content = {"error": error, "traceback": trace}
    # An error may hold half of a character, from a file's name say, which JSON must not.
    text = {key: value.encode("utf-8", "replace").decode() for key, value in content.items()}
    write_text(folder / FAILED, json.dumps(text, indent=1) + "\n")


def end(folder: Path) -> str | None:
    """Return how the run of a folder has ended: finished, failed, or None if it has not."""
    if (folder / RESULT).exists():
        return "finished"
    return "failed" if (folder / FAILED).exists() else None


def state(path: Path, run: Run) -> str:
    """Return how a run of a list stands: finished, failed, held, interrupted, or waiting."""
    folder = path.parent / run.name
    held = "held" if is_held(folder) else None
    return end(folder) or held or ("interrupted" if _is_begun(folder) else "waiting")


def _is_begun(folder: Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def failure(path: Path, run: Run) -> str:
    """Return the sentence of a run that failed.

    Raises:
        OSError: if its `failed.json` cannot be read.
        ValueError: if that file is damaged.
    """
    return read_json(path.parent / run.name / FAILED, Failure).error
