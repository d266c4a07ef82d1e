"""`hatch run bench:fault-events`: SIGKILL at each file event of a run, then the same command again.

A run of each recipe is watched once: what its process opens for writing, writes, brings to the
disk, renames, links and deletes in its folder, in order. Then it is begun again for every one of
these events, killed just before it (before a write: when half of it is on the disk), and the same
command is given once more. What is left must be what a run leaves that was never killed: the same
files with the same modes and content, times excepted, and the result written last.

One row a kill is appended to `results/faults/events.jsonl`; those there are not done again.
"""

import json
import os
import re
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro
from effconv_core.cli.errors import run_command
from effconv_core.io.atomic import append_text, write_text
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment

from tools.faults.operations import epochs_done, epochs_run, run_outcome, start
from tools.support.rows import append_row, read_rows

RESULTS = Path("results/faults/events.jsonl")
PATIENCE = 900  # seconds until a process counts as hung
RECIPES = ("default", "paper")
SMALLEST = ["--samples=64", "--batch-size=12", "--search.epochs=2", "--train.epochs=2"]
SMALLEST += ["--train.batch-size=32", "--device=cpu", "--search.least-steps=0"]
OF_RECIPE = {"default": ["--search.finalists=2", "--search.race-steps=2"], "paper": []}
RANDOM = re.compile(r"\.?([\w.-]+?)\.[0-9a-f]{16}\.partial")  # as `written_whole` names a part
AUDITED = {"os.rename": "rename", "os.remove": "unlink", "os.link": "link", "os.mkdir": "mkdir"}
AUDITED |= {"os.rmdir": "rmdir", "os.chmod": "chmod"}


@dataclass(frozen=True)
class Options:
    """Kill a run at each of its file events, repeat it, compare."""

    recipes: tuple[str, ...] = RECIPES
    """Whose runs."""
    out: Path = RESULTS
    """File of the rows."""


# What happens within the process that is killed.


class Watch:
    """Counts what the main thread does to files in a folder, and kills the process before one.

    Args:
        folder: the run's.
        log: gets a line for each event.
        fatal: the number of the event that is not reached, counted from 1; 0 for none.
    """

    def __init__(self, folder: Path, log: Path, fatal: int) -> None:
        self.folder, self.log, self.fatal, self.count = f"{folder}{os.sep}", log, fatal, 0
        self.noting = False
        self.fsync, self.fdopen = os.fsync, os.fdopen

    def begin(self) -> None:
        """Watch from now on."""
        sys.addaudithook(self.hook)
        os.fsync, os.fdopen = self.on_fsync, self.on_fdopen

    def note(self, kind: str, path: str) -> bool:
        """Count an event; return whether it is the fatal one."""
        inside = f"{path}{os.sep}".startswith(self.folder)
        if self.noting or not inside or threading.current_thread() is not threading.main_thread():
            return False
        self.noting, self.count = True, self.count + 1  # or writing the log would be an event
        name = RANDOM.sub(
            r"\1 (part)", path.removeprefix(self.folder.rstrip(os.sep)).lstrip(os.sep)
        )
        append_text(self.log, json.dumps([kind, name or "."]) + "\n")
        self.noting = False
        return self.count == self.fatal

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of what Python tells of."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
            kind = "open"
        elif event in AUDITED:
            path, kind = arguments[1 if event in ("os.rename", "os.link") else 0], AUDITED[event]
        else:
            return
        if self.note(kind, str(Path(os.fsdecode(path)).absolute())):
            die()

    def on_fsync(self, handle: int) -> None:
        """Before a file is brought to the disk it was written: half of it, or all."""
        path = file_of(handle)
        if path.is_file() and self.note("write", str(path)):
            os.truncate(path, path.stat().st_size // 2)
            die()
        if self.note("fsync", str(path)):
            die()
        self.fsync(handle)

    def on_fdopen(self, handle: int, mode: str = "r", *more: Any, **options: Any) -> Any:
        """Return a file; what is appended to it arrives in halves."""
        file = self.fdopen(handle, mode, *more, **options)
        if "a" in mode:
            write, path = file.write, str(file_of(handle))

            def written(text: str) -> int:
                if self.note("write", path):
                    write(text[: len(text) // 2])
                    file.flush()
                    die()
                return write(text)

            return Appended(file, written)
        return file


class Appended:
    """A file with another `write`."""

    def __init__(self, file: Any, write: Any) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> "Appended":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def file_of(handle: int) -> Path:
    """Return what a file descriptor leads to."""
    return Path(f"/proc/self/fd/{handle}").readlink()


def die() -> None:
    """End this process as a power cut would end it."""
    os.kill(os.getpid(), signal.SIGKILL)


def watched(arguments: Sequence[str]) -> int:
    """Run a module as a command under a `Watch`: number, log, folder, module, arguments."""
    fatal, log, folder, module, *more = arguments
    Watch(Path(folder), Path(log), int(fatal)).begin()
    sys.argv = [module, *more]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


# What the drill does.


def command_of(recipe: str, folder: Path) -> list[str]:
    """Return module and arguments of the smallest run of a recipe, kept in `folder/run`."""
    place = ["--runs", str(folder), "--name", "run"]
    return ["tools.search", "demo", "--recipe", recipe, *SMALLEST, *OF_RECIPE[recipe], *place]


def go(recipe: str, folder: Path, fatal: int) -> tuple[int, str, list[list[str]]]:
    """Run it, killed before one event, or not where that is 0; give status, output and events."""
    output, log = folder / f"output {fatal}.txt", folder / f"events {fatal}.jsonl"
    words = ["tools.faults.events:watched", str(fatal), str(log), str(folder / "run")]
    process, begun = start([*words, *command_of(recipe, folder)], output)
    begun.recv()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"a process in {folder} is still at work after {PATIENCE} s")
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return process.exitcode, output.read_text(), events


def refer(recipe: str, folder: Path) -> tuple[dict[str, Any], list[list[str]]]:
    """Run without a kill; give what it leaves and its events."""
    folder.mkdir()
    status, said, events = go(recipe, folder, 0)
    if status:
        raise RuntimeError(f"the run of recipe {recipe} ended with {status}: {said[-500:]}")
    return run_outcome(folder), events


def kill_at(number: int, recipe: str, folder: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Kill a run before its event of that number, repeat the command, and give the row."""
    folder.mkdir()
    status, said, events = go(recipe, folder, number)
    losses = []
    if status != -signal.SIGKILL or len(events) != number:
        losses.append(f"ended with {status} after {len(events)} events: {said[-300:]}")
    finished = (folder / "run" / "result.json").exists()
    before = epochs_done(folder)
    status, said, _ = go(recipe, folder, 0)
    if status and not (finished and status == 2 and "is finished" in said):
        losses.append(f"the repeated command ended with {status}: {said[-500:]}")
    again = {p: first for p, first in epochs_run(said).items() if first < before.get(p, 0)}
    if again:
        losses.append(f"did again what was complete: {again}, and {before} was")
    try:
        losses += differences(run_outcome(folder), whole)
    except (OSError, ValueError) as error:
        losses.append(str(error))
    return {"recipe": recipe, "number": number, "event": events[-1:], "losses": losses}


def differences(found: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """Name what a run left other than one that was never killed."""
    names = [name for name in sorted(found.keys() | whole.keys()) if found[name] != whole[name]]
    told = {"files", "result last"}
    return [f"{n}: {found[n]}, not {whole[n]}" if n in told else f"another {n}" for n in names]


def check_environment(header: dict[str, Any], out: Path) -> None:
    """Refuse to go on in another environment, which stands in the reports that are compared.

    Raises:
        ValueError: if a version or the commit is no longer that of the header.
    """
    now = environment("cpu")
    if now != header["environment"]:
        raise ValueError(
            f"{out} was begun with {header['environment']}, and now it is {now}; name another "
            "--out, and change nothing until the drill has ended"
        )


def main() -> int:
    """Run the command line; the exit status is 1 if something was lost."""
    options, console = tyro.cli(Options, prog="bench:fault-events"), PlainConsole()
    header, *rows = read_rows(options.out) or [{}]
    with TemporaryDirectory() as place:
        wholes, events = {}, {}
        for recipe in options.recipes:
            started = time.monotonic()
            wholes[recipe], events[recipe] = refer(recipe, Path(place) / f"whole {recipe}")
            seconds = time.monotonic() - started
            told = f"{recipe}: {len(events[recipe])} events, {seconds:.1f} s without a kill"
            console.print(told, highlight=False)
        if header and header["events"] != events:
            raise ValueError(f"{options.out} was made with other events; name another --out")
        header = header or {"events": events, "environment": environment("cpu")}
        check_environment(header, options.out)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        # A line that an interruption cut off would run into the next one.
        write_text(options.out, "".join(json.dumps(row) + "\n" for row in [header, *rows]))
        done = {(row["recipe"], row["number"]) for row in rows}
        for recipe in options.recipes:
            for number in range(1, len(events[recipe]) + 1):
                if (recipe, number) in done:
                    continue
                check_environment(header, options.out)
                row = kill_at(number, recipe, Path(place) / f"{recipe} {number}", wholes[recipe])
                rows.append(row)
                append_row(options.out, row)
                told = f"{recipe} {number}/{len(events[recipe])} {row['event']}: "
                told += str(row["losses"] or "nothing lost")
                console.print(told, markup=False, highlight=False)
    lost = sum(bool(row["losses"]) for row in rows)
    console.print(f"{len(rows)} kills, {lost} with a loss")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(run_command("fault-events", main))
