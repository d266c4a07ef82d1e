"""Lists of runs, a folder each: what a list holds, how one run of it is done, and how all stand.

A list is a JSON file; the folders of its runs lie beside it. A run has ended when its folder holds
`result.json`, or `failed.json` where it raised an error. It is locked while it is worked on.
"""

import importlib
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from effconv_core.io.atomic import write_text
from effconv_core.io.read_json import read_json
from effconv_core.run_files import RESULT
from effconv_core.runs.lock import ClaimedError, claim, is_held
from rich.console import Console

FAILED = "failed.json"
PATIENCE = 30.0  # seconds until a run's folder counts as held: a killed holder takes a moment to go

Name = Annotated[str, msgspec.Meta(pattern=r"\A[^/\\.][^/\\]*\Z")]


@dataclass(frozen=True)
class Run:
    """One run: the function that does it, or what is left of it, in its folder."""

    name: Name
    """Of its folder."""
    function: str
    """`module:function`, called with the folder, a console and the arguments; writes the result."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can hold."""
    needs: tuple[Name, ...] = ()
    """Runs of the list that come before it."""


class Failure(msgspec.Struct):
    """What `failed.json` holds."""

    error: str
    traceback: str = ""


def write_list(path: Path, runs: Sequence[Run]) -> None:
    """Write a list, and give its failed runs another chance.

    Raises:
        ValueError: if two runs have one name, or one needs a run that is not in the list.
    """
    names = {run.name for run in runs}
    if len(names) < len(runs):
        raise ValueError(
            f"{path} would hold {len(runs)} runs of {len(names)} names; name them apart"
        )
    missing = sorted({need for run in runs for need in run.needs} - names)
    if missing:
        raise ValueError(f"runs of {path} need {', '.join(missing)}, which it lacks; add them")
    path.parent.mkdir(parents=True, exist_ok=True)
    for run in runs:
        (path.parent / run.name / FAILED).unlink(missing_ok=True)
    write_text(path, json.dumps([asdict(run) for run in runs], indent=1) + "\n")


def read_list(path: Path) -> list[Run]:
    """Read a list.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no list of runs.
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
    console, begun = console or Console(), _is_begun(folder)
    if end(folder):
        return None
    try:
        with claim(folder, PATIENCE):
            if not end(folder):  # it may have ended while this process waited for the lock
                console.print(run.name + (" goes on" if begun else ""), highlight=False)
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
    except Exception as error:  # the others are worth having all the same
        fail(folder, f"{type(error).__name__}: {error}", traceback.format_exc())


def _forget_what_was_compiled() -> None:
    """Let a run compile as if it were alone in its process.

    PyTorch compiles a function, such as a network's forward, for eight kinds of arguments, such as
    networks of eight plans, and runs it eagerly for all further ones.
    """
    if "torch._dynamo" in sys.modules:  # nothing was compiled before it is imported, which is slow
        torch.compiler.reset()


def fail(folder: Path, error: str, trace: str = "") -> None:
    """Write that a run has failed, which ends it."""
    folder.mkdir(parents=True, exist_ok=True)
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
