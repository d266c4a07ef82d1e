"""Operations of the drill: start, process, and required outcome of each."""

import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from effconv_core.io.checkpoint import read_training_state
from effconv_core.io.console import PlainConsole
from effconv_core.runs.lock import is_held
from effconv_core.runs.owner import LOCK
from PIL import Image
from safetensors import safe_open

from tools.queue.launchers import Launch, launch
from tools.queue.run_list import Run

SEARCH_EPOCHS, TRAIN_EPOCHS = 3, 3
SMALL = ["--samples=640", "--search.finalists=4"]
SMALL += ["--search.least-steps=0", "--search.race-steps=2"]
SHORT = [*SMALL, f"--search.epochs={SEARCH_EPOCHS}", f"--train.epochs={TRAIN_EPOCHS}"]
TIMES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC|\b\d+ h \d+ min|\b\d+ min \d+ s\b|\b\d+\.\d s\b")
LIST = "list.json"
LISTED = 3  # runs of the list
# Imported once by the fork server, so that processes start within milliseconds.
PRELOADED = ["tools.search", "tools.queue.launchers", "effconv_data.cli", "tools.faults.operations"]
PRELOADED += ["torch._dynamo", "matplotlib.figure"]  # imported at need, and take the longest

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """An operation to be killed.

    Attributes:
        begin: prepares its input in an empty folder; the second folder is that of a run that was
            never killed.
        commands: the module to run, or `module:function` to call, and the arguments of each
            process, for a folder.
        outcome: its required result, bit-identical however often it was killed.
        done: what is complete at a kill and must not be repeated.
        workers: the processes that those of the commands have started to do the work.
    """

    begin: Callable[[Path, Path], None]
    commands: Callable[[Path], list[list[str]]]
    outcome: Callable[[Path], Outcome]
    done: Callable[[Path], dict[str, int]]
    workers: Callable[[Path], list[int]] = lambda _: []


def start(command: Sequence[str], output: Path) -> tuple[BaseProcess, Any]:
    """Start a process; return it, and a connection on which it reports its start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(list(command), output, theirs))
    process.start()
    theirs.close()
    return process, ours


def _run(command: list[str], output: Path, begun: Any) -> None:
    """Run a command, with its output in a file."""
    handle = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    sys.argv = command
    begun.send("begun")
    module, _, function = command[0].partition(":")
    if function:
        sys.exit(getattr(importlib.import_module(module), function)(command[1:]))
    sys.modules.pop(module, None)  # it was imported by the server, and must run as a command
    runpy.run_module(module, run_name="__main__", alter_sys=True)


# A run: search, training and report are the same command, begun from where each begins.


def _run_command(folder: Path) -> list[list[str]]:
    place = ["--runs", str(folder), "--name", "run"]
    return [["tools.search", "demo", *SHORT, *place]]


def _from(*kept: str) -> Callable[[Path, Path], None]:
    def begin(folder: Path, whole: Path) -> None:
        (folder / "run").mkdir()
        for name in kept:
            shutil.copy(whole / "run" / name, folder / "run" / name)
        if "metrics.jsonl" in kept:
            phases = ["search"] if "train.safetensors" not in kept else ["search", "train"]
            rows = [row for row in _rows(whole / "run") if row["phase"] in phases]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "run" / "metrics.jsonl").write_text(text)

    return begin


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _tensors(path: Path) -> str:
    """Return the sha256 of a file's tensors; the order of its metadata differs between runs."""
    digest = hashlib.sha256()
    with safe_open(path, "np") as file:
        for name in sorted(file.keys()):
            digest.update(name.encode() + file.get_tensor(name).tobytes())
    return digest.hexdigest()


def run_outcome(folder: Path) -> Outcome:
    """Return all that the run in `folder/run` promises, as far as it does not depend on the time.

    Raises:
        OSError: if a file is missing.
        ValueError: if one cannot be read.
    """
    run = folder / "run"
    report, page = (
        (run / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")
    )
    files = [path for path in run.rglob("*") if path.is_file() and not _is_of_no_promise(path, run)]
    last = max(files, key=lambda path: path.stat().st_mtime_ns)
    return {
        "result": json.loads((run / "result.json").read_text()),
        "plan": (run / "plan.json").read_text(),
        "weights": _tensors(run / "cnn.safetensors"),
        "search": _tensors(run / "search.safetensors"),
        "train": _tensors(run / "train.safetensors"),
        "metrics": [{k: v for k, v in row.items() if k != "seconds"} for row in _rows(run)],
        "figure": hashlib.sha256((run / "sizes.png").read_bytes()).hexdigest(),
        "report": [line for line in report.splitlines() if line[:8] != "Search: "],
        "page": timeless(page),
        "files": {str(path.relative_to(run)): oct(path.stat().st_mode) for path in sorted(files)},
        "result last": last.name,
    }


def _is_of_no_promise(path: Path, run: Path) -> bool:
    """Return whether a file is TensorBoard's, whose names are times, or tells who is at work."""
    return path.relative_to(run).parts[0] in ("tensorboard", LOCK)


def timeless(page: str) -> str:
    """Return a report without the times that it was made at and took."""
    return TIMES.sub("TIME", page)


def epochs_done(folder: Path) -> dict[str, int]:
    """Return the epochs of each phase of the run in `folder/run` whose state is on the disk."""
    done = {}
    for phase in ("search", "train"):
        with contextlib.suppress(FileNotFoundError):
            done[phase] = read_training_state(folder / "run" / f"{phase}.safetensors").progress[
                "epoch"
            ]
    return done


def epochs_run(output: str) -> dict[str, int]:
    """Return the first epoch of each phase that a process has completed, from 0, by its output."""
    first: dict[str, int] = {}
    for phase, number in re.findall(r"^(search|train) epoch (\d+)/", output, re.MULTILINE):
        first.setdefault(phase, int(number) - 1)
    return first


# Preparation of a folder of images.


def _begin_preparation(folder: Path, _: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(240):
        place = folder / "source" / ("train", "test")[number % 5 == 4] / f"class{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(256, size=(24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:03d}.png")


def _prepare_command(folder: Path) -> list[list[str]]:
    options = ["--source", str(folder / "source"), "--out", str(folder / "set")]
    options += ["--shard-samples", "6", "--workers", "2"]
    return [["effconv_data.cli:main", "prepare", "folder", *options]]


def _prepared(folder: Path) -> Outcome:
    files = (path for path in (folder / "set").iterdir() if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _shards_done(folder: Path) -> dict[str, int]:
    journal = folder / "set" / ".progress.jsonl"
    rows = journal.read_text().splitlines() if journal.exists() else []
    return {"shards": max(0, len(rows) - 1)}


# A list of runs, two workers at a time.


def _list_command(folder: Path) -> list[list[str]]:
    return [["tools.faults.operations:do_list", str(folder / LIST)]]


def do_list(arguments: Sequence[str]) -> int:
    """Do a list of searches and trainings by two workers."""
    given = ["demo", *SMALL, "--search.epochs=1", "--train.epochs=1"]
    runs = [
        Run(f"run{seed}", "tools.search:run_in", {"arguments": [*given, f"--seed={seed}"]})
        for seed in range(LISTED)
    ]
    return launch(Path(arguments[0]), runs, Launch(workers=2), PlainConsole())


def _list_workers(folder: Path) -> list[int]:
    """Return the processes of this user that hold a run, by their locks and by what they are."""
    locks = [path for path in folder.glob(f"run*/{LOCK}") if is_held(path.parent)]
    said = "".join(path.read_text() for path in locks if path.exists())
    found = [int(number) for number in re.findall(r"process (\d+) on", said)]
    return [pid for pid in found if "loky" in Path(f"/proc/{pid}/cmdline").read_text()]


def _list_outcome(folder: Path) -> Outcome:
    return {
        f"run{seed}": [
            json.loads((folder / f"run{seed}" / "result.json").read_text()),
            _tensors(folder / f"run{seed}" / "cnn.safetensors"),
        ]
        for seed in range(LISTED)
    }


def _runs_done(folder: Path) -> dict[str, int]:
    return {"runs": len(list(folder.glob("run*/result.json")))}


SEARCHED = ("config.json", "metrics.jsonl", "search.safetensors", "search.previous.safetensors")
TRAINED = (*SEARCHED, "train.safetensors", "train.previous.safetensors")
OPERATIONS = {
    "search": Operation(_from(), _run_command, run_outcome, epochs_done),
    "training": Operation(_from(*SEARCHED), _run_command, run_outcome, epochs_done),
    "report": Operation(_from(*TRAINED), _run_command, run_outcome, epochs_done),
    "preparation": Operation(_begin_preparation, _prepare_command, _prepared, _shards_done),
    "list of runs": Operation(
        lambda *_: None, _list_command, _list_outcome, _runs_done, _list_workers
    ),
}
