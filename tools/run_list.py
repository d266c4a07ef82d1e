"""Lists of runs, a folder each, that any number of workers work through side by side.

A list is a JSON file; the folders of its runs lie beside it. A run has ended when its folder holds
`result.json`, or `failed.json` where it raised an error. Who works on a folder is told by claims,
so workers need know nothing of each other, and any launcher may start any number of them.
"""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from effconv_core.claim import ClaimedError, claim, held_before, is_held, watcher
from effconv_core.io.atomic import remove_file, write_text
from effconv_core.run_files import FAILED, RESULT
from effconv_core.run_names import check_name
from effconv_core.run_owner import Owner, check_place, mark
from rich.console import Console

POLL = 2.0  # seconds between two looks at runs that others hold


@dataclass(frozen=True)
class Run:
    """One run: the function that does it, or what is left of it, in its folder."""

    name: str
    """Of its folder."""
    function: str
    """`module:function`, called with the folder, a console and the arguments; writes the result."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can hold."""
    needs: tuple[str, ...] = ()
    """Runs of the list that come before it."""


def write_list(path: Path, runs: Sequence[Run], beside: Sequence[str] = ()) -> None:
    """Write a list, and give its failed runs another chance.

    Args:
        path: of the list.
        runs: what is to be done.
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
    waiting = [path.parent / run.name for run in runs if state(path, run) != "finished"]
    ours = [folder for folder in waiting if check_place(folder) is Owner.RUN]
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in ours:
        remove_file(folder / FAILED)
    write_text(path, json.dumps([asdict(run) for run in runs], indent=1) + "\n")


def check_list_place(path: Path, beside: Sequence[str]) -> None:
    """Refuse to replace files that no list has made: without the list there is none of the rest.

    Raises:
        FileExistsError: if there is such a file.
    """
    if os.path.lexists(path):
        try:
            ours = path.is_file() and not path.is_symlink() and bool(read_list(path))
        except (ValueError, TypeError, KeyError):
            ours = False
        found = [] if ours else [path]
    else:
        found = [path.parent / name for name in beside if os.path.lexists(path.parent / name)]
    if found:
        raise FileExistsError(f"{found[0]} is no list of runs or of one; name another folder")


def read_list(path: Path) -> list[Run]:
    """Read a list."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Run(**{**row, "needs": tuple(row["needs"])}) for row in rows]


def work(path: Path, console: Console, on_end: Callable[[str], None] = lambda _: None) -> None:
    """Do runs of a list until all have ended, here or in another worker.

    A worker that has nothing to do waits, since it may have to take over from one that dies. What
    was already held by others comes last, so that a run which kills its workers does not keep the
    rest from being done.

    Args:
        path: of the list.
        console: where the runs show what they do.
        on_end: told the name of each run that this worker has ended.
    """
    runs, silent = read_list(path), watcher()
    while left := [run for run in runs if state(path, run) not in ("finished", "failed")]:
        left.sort(key=lambda run: held_before(path.parent / run.name))
        for run in left:
            if _try(run, path, console, silent):
                on_end(run.name)
                break
        else:
            time.sleep(POLL)


def _try(run: Run, path: Path, console: Console, silent: Callable[[Path], bool]) -> bool:
    """Do a run if it can be had; tell whether it has ended."""
    folder, needs = path.parent / run.name, [path.parent / name for name in run.needs]
    failed = [need.name for need in needs if (need / FAILED).exists()]
    if not failed and not all((need / RESULT).exists() for need in needs):
        return False
    mark(folder)
    try:
        held = claim(folder, silent)
    except ClaimedError:
        return False
    with held:
        # It may have ended between the look at it and the claim.
        if (folder / RESULT).exists() or (folder / FAILED).exists():
            return True
        if failed:
            _fail(folder, f"it needs {', '.join(failed)}, which failed", "")
            return True
        _forget_what_was_compiled()
        console.print(f"{run.name}" + (" goes on" if held.number > 1 else ""), highlight=False)
        try:
            module, _, name = run.function.partition(":")
            getattr(importlib.import_module(module), name)(folder, console, **run.arguments)
            if not (folder / RESULT).exists():
                raise RuntimeError(f"{run.function} ended without writing {folder / RESULT}")
        except Exception as error:  # the others are worth having all the same
            _fail(folder, f"{type(error).__name__}: {error}", traceback.format_exc())
        except KeyboardInterrupt:
            if not held.lost:
                raise
            console.print(f"{run.name} was silent for too long, and another worker has taken it")
            return False
    return True


def _forget_what_was_compiled() -> None:
    """Let a run compile as if it were alone in its process.

    PyTorch compiles a function, such as a network's forward, for eight kinds of arguments, such as
    networks of eight plans, and runs it eagerly for all further ones.
    """
    if "torch._dynamo" in sys.modules:  # nothing was compiled before it is imported, which is slow
        torch.compiler.reset()


def _fail(folder: Path, error: str, trace: str) -> None:
    write_text(folder / FAILED, json.dumps({"error": error, "traceback": trace}, indent=1) + "\n")


def state(path: Path, run: Run) -> str:
    """Say how a run of a list stands: finished, failed, held, interrupted, or waiting."""
    folder = path.parent / run.name
    if (folder / RESULT).exists():
        return "finished"
    if (folder / FAILED).exists():
        return "failed"
    if is_held(folder):
        return "held"
    return "interrupted" if held_before(folder) else "waiting"


def failure(path: Path, run: Run) -> str:
    """Give the sentence of a run that failed."""
    return json.loads((path.parent / run.name / FAILED).read_text(encoding="utf-8"))["error"]
