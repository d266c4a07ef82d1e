"""`hatch run bench:faults`: kill operations at random moments, resume them, check for losses.

One row per drill is appended to `results/faults/kills.jsonl`; existing ones are not repeated.
A drill starts an operation in an empty folder, kills its processes one to three times, each time
at a moment drawn over the operation's length, resumes the same command after each kill, and
compares the final files with those of an operation that was never killed, bit for bit.
"""

import json
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro
from effconv_core.io.atomic import write_text
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment

from tools.faults.operations import OPERATIONS, Operation, Outcome, epochs_run, start
from tools.support.rows import append_row, read_rows

RESULTS = Path("results/faults/kills.jsonl")
MOST = 3  # kills of one drill
PATIENCE = 1800  # seconds until a process counts as hung


@dataclass(frozen=True)
class DrillOptions:
    """Kill, resume, compare."""

    kills: int = 100
    """Number of kills, or slightly more, since a drill has up to three."""
    seed: int = 0
    """Seed of operations and moments."""
    operations: tuple[str, ...] = tuple(OPERATIONS)
    """Operations to drill, in turn."""
    out: Path = RESULTS
    """File of the rows."""


@dataclass(frozen=True)
class Reference:
    """An operation that was not killed."""

    folder: Path
    outcome: Outcome
    seconds: float


def go(
    operation: Operation, folder: Path, moment: float | None, source: random.Random
) -> tuple[int, str, list[int]]:
    """Start an operation's processes; return the number killed, their output, and exit codes.

    Args:
        operation: the operation.
        folder: its folder.
        moment: seconds from the beginning until one process, or all of them, are killed; one is
            one of those that do the work, where the operation has some; None kills none.
        source: draws which are killed.
    """
    output = folder / "output.txt"
    said = len(output.read_text()) if output.exists() else 0
    started = [start(command, output) for command in operation.commands(folder)]
    for _, begun in started:
        begun.recv()
    processes = [process for process, _ in started]
    whole, workers = source.random() < 0.5, []
    victims = processes if whole else [source.choice(processes)]
    if moment is not None:
        until = time.monotonic() + moment
        while time.monotonic() < until and any(p.is_alive() for p in victims):
            time.sleep(0.002)
        workers = operation.workers(folder)
        if workers and not whole:
            victims, workers = [], [source.choice(workers)]
        for process in victims:
            process.kill()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
    for process in processes:
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"a process in {folder} is still at work after {PATIENCE} s")
    codes = [process.exitcode for process in processes]
    return sum(code == -9 for code in codes) + len(workers), output.read_text()[said:], codes


def refer(name: str, folder: Path, whole: Path) -> Reference:
    """Run an operation without a kill."""
    operation = OPERATIONS[name]
    folder.mkdir()
    operation.begin(folder, whole)
    started = time.monotonic()
    _, said, codes = go(operation, folder, None, random.Random(0))
    if any(codes):
        raise RuntimeError(f"{name} ended with {codes} though nothing was killed: {said}")
    return Reference(folder, operation.outcome(folder), time.monotonic() - started)


def drill(name: str, seed: int, folder: Path, reference: Reference, whole: Path) -> dict[str, Any]:
    """Kill an operation up to three times, resume it to its end; return the row."""
    operation, source = OPERATIONS[name], random.Random(f"{name} {seed}")
    wanted, kills, losses = source.randint(1, MOST), [], []
    operation.begin(folder, whole)
    while True:
        before = operation.done(folder)
        moment = source.uniform(0, reference.seconds) if len(kills) < wanted else None
        killed, said, codes = go(operation, folder, moment, source)
        # An epoch whose state was on disk must not be repeated.
        again = {
            phase: [before[phase], first]
            for phase, first in epochs_run(said).items()
            if first < before.get(phase, 0)
        }
        if again:
            losses.append(f"did again what was complete: {again}")
        if any(code not in (0, -9) for code in codes):
            losses.append(f"ended with {codes}: {said[-500:]}")
            break
        if killed:
            done = operation.done(folder)
            kills.append({"after_s": round(moment, 3), "processes": killed, "done": done})
        if not killed or (len(kills) == wanted and 0 in codes):
            break  # it has finished: nobody was killed, or others did the rest
    try:
        outcome = operation.outcome(folder)
        differing = [key for key in reference.outcome if outcome.get(key) != reference.outcome[key]]
        differing += sorted(outcome.keys() - reference.outcome.keys())
    except OSError as error:
        differing = [str(error)]
    if differing:
        losses.append(f"is not what an operation leaves that was not killed: {differing}")
    return {"operation": name, "seed": seed, "kills": kills, "losses": losses}


def main() -> int:
    """Run the command line; the exit status is 1 if something was lost."""
    options, console = tyro.cli(DrillOptions, prog="bench:faults"), PlainConsole()
    unknown = [name for name in options.operations if name not in OPERATIONS]
    if unknown:
        raise ValueError(f"operations has {unknown[0]!r}; pass some of {', '.join(OPERATIONS)}")
    header, *rows = read_rows(options.out) or [{}]
    settings = {"seed": options.seed, "operations": list(options.operations)}
    if header and header["settings"] != settings:
        raise ValueError(f"{options.out} was made with {header['settings']}; name another --out")
    with TemporaryDirectory() as place:
        references: dict[str, Reference] = {}
        # Training and report start from the results of an uninterrupted search.
        for name in ("search", *options.operations):
            if name not in references:
                folder = Path(place) / f"whole {name}"
                whole = references["search"].folder if references else folder
                references[name] = refer(name, folder, whole)
                console.print(f"{name}: {references[name].seconds:.1f} s when nothing is killed")
        if not header:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            seconds = {name: round(found.seconds, 2) for name, found in references.items()}
            header = {"settings": settings, "seconds": seconds, "environment": environment("cpu")}
            write_text(options.out, json.dumps(header) + "\n")
        else:  # a line cut off by an interruption would merge with the next one
            write_text(options.out, "".join(json.dumps(row) + "\n" for row in [header, *rows]))
        whole = references["search"].folder
        while (killed := sum(len(row["kills"]) for row in rows)) < options.kills:
            name = options.operations[len(rows) % len(options.operations)]
            seed = rows[-1]["seed"] + 1 if rows else options.seed * 1_000_000
            row: dict[str, Any] = {"kills": []}
            while not row["kills"]:  # it may have finished before that moment
                folder = Path(place) / str(seed)
                folder.mkdir()
                row = drill(name, seed, folder, references[name], whole)
                seed += 1
            rows.append(row)
            append_row(options.out, row)
            console.print(
                f"{killed + len(rows[-1]['kills'])}/{options.kills} kills: {name}, "
                f"{len(rows[-1]['kills'])}, lost: {rows[-1]['losses'] or 'nothing'}",
            )
    lost = sum(bool(row["losses"]) for row in rows)
    console.print(f"{killed} kills, {len(rows)} operations, {lost} with a loss")
    return 1 if lost else 0
