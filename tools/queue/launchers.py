"""Do the runs of a list: in order, each once, with a bound on what is tried again.

Each run is one task of a library, see `engines.py`; this process hands out what can be done, tells
what has ended, and writes nothing that another could not write as well.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from effconv_core.runs.lock import was_killed
from rich.console import Console

from tools.queue.engines import Engine, here, local, ray, slurm
from tools.queue.run_list import Run, end, fail, failure, write_list

POLL = 0.5  # seconds between polls of the runs


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How runs are executed."""

    launcher: Literal["local", "slurm", "ray"] = "local"
    """local: processes here, or this one if one worker is enough; slurm: jobs, through submitit;
    ray: tasks of the cluster that RAY_ADDRESS names, or of this machine. The folders of the runs
    must be at the same path on all machines."""
    workers: int = 1
    """How many runs are done at a time."""
    minutes: int = 24 * 60
    """Time limit of a SLURM job; one that reaches it is requeued."""
    slurm: tuple[str, ...] = ()
    """Further parameters of sbatch, such as `partition=gpu gpus-per-node=1 cpus-per-task=8`."""
    gpus: float = 0.0
    """GPUs of each of Ray's tasks; SLURM's are told by `--slurm`."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; it must be at least 1, so raise it")
        if wrong := [text for text in self.slurm if "=" not in text]:
            raise ValueError(f"slurm has {wrong[0]!r}; write parameters as NAME=VALUE")


def launch(
    path: Path,
    runs: Sequence[Run],
    options: Launch,
    console: Console,
    on_end: Callable[[Run], None] = lambda _: None,
    beside: Sequence[str] = (),
) -> int:
    """Do all runs of a list; return the exit status, which is 1 if some are not finished.

    Args:
        path: the list's file, which is written; finished runs in its folders are kept.
        runs: the runs.
        options: how to execute them.
        console: reports what ends, and how.
        on_end: called with each run that has ended.
        beside: names of other files that the command of this list writes into its folder.

    Raises:
        FileExistsError: if the folder holds files that would be replaced and are not of a list.
        ValueError: if workers that see one GPU each are to use a GPU by number.
    """
    alone = options.launcher == "local" and options.workers == 1
    for run in runs:
        device = str(run.arguments.get("device"))
        if device.startswith("cuda:") and not alone:
            raise ValueError(
                f"device is {device!r}, but each worker sees one GPU only; pass 'cuda', and "
                "choose GPUs by CUDA_VISIBLE_DEVICES"
            )
    write_list(path, runs, beside)
    before = [run for run in runs if end(path.parent / run.name)]
    if before:
        console.print(f"{len(before)} of {len(runs)} runs were finished before")

    def told(run: Run, number: int) -> None:
        how = end(path.parent / run.name)
        why = f": {failure(path, run)}" if how == "failed" else ""
        on_end(run)
        say(console, f"{number}/{len(runs)} {run.name} {how}{why}")

    if len(before) < len(runs):
        if alone:
            engine = here(path, console)
        elif options.launcher == "local":
            engine = local(path, options.workers)
        elif options.launcher == "slurm":
            engine = slurm(path, options.workers, options.minutes, options.slurm)
        else:
            engine = ray(path, options.workers, options.gpus)
        _follow(path, runs, engine, console, told)
    ends = {run.name: end(path.parent / run.name) for run in runs}
    failed = [name for name, how in ends.items() if how == "failed"]
    left = [name for name, how in ends.items() if how is None]
    if failed:
        say(console, f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")
    if left:
        say(
            console,
            f"{len(left)} of {len(runs)} runs are left: {', '.join(left)}; the same command goes "
            "on with them",
        )
    return 1 if failed or left else 0


def say(console: Console, sentence: str) -> None:
    """Show a sentence in which names and errors stand as they are."""
    console.print(sentence, soft_wrap=True)


def _follow(
    path: Path,
    runs: Sequence[Run],
    engine: Engine,
    console: Console,
    told: Callable[[Run, int], None],
) -> None:
    """Hand runs to an engine, those that others need first, until all have ended or are given up.

    Args:
        path: of the list.
        runs: all runs of the list.
        engine: what does them.
        console: told whose worker died.
        told: called with each run that has ended, and how many have.
    """
    folders = {run.name: path.parent / run.name for run in runs}
    left = {run.name: run for run in runs if not end(folders[run.name])}
    tasks: dict[str, Any] = {}
    tries: Counter[str] = Counter()

    def over(name: str) -> bool:
        """Report a run that has ended, or cannot be done; return whether it has."""
        ends = {need: end(folders[need]) for need in left[name].needs}
        failed = [need for need, how in ends.items() if how == "failed"]
        if failed and not end(folders[name]):
            fail(folders[name], f"it needs {', '.join(failed)}, which failed")
        if not end(folders[name]):
            return False
        told(left.pop(name), len(runs) - len(left))
        return True

    def ready() -> list[Run]:
        found = [
            run
            for run in left.values()
            if run.name not in tasks
            and tries[run.name] < engine.tries
            and all(end(folders[need]) for need in run.needs)
        ]
        # Those that were killed come last, so that one which kills its workers stops no other.
        found.sort(key=lambda run: (tries[run.name], was_killed(folders[run.name])))
        return found[: max(0, engine.width - len(tasks))]

    try:
        while True:
            while any(over(name) for name in [*left] if name not in tasks):
                pass  # a failed run fails those that need it, and these others
            if begin := ready():
                tries.update(run.name for run in begin)
                for run, task in zip(begin, engine.submit(begin), strict=True):
                    tasks[run.name] = task
            if not tasks:
                return
            done = [name for name, task in tasks.items() if task.done()]
            for name in done:
                task = tasks.pop(name)
                if end(folders[name]):
                    continue
                error = task.exception()
                if error is None:  # another process holds it, so it is left to that one
                    tries[name] = engine.tries
                    say(console, f"{name} is not done here: {task.result()}")
                else:
                    again = "begun again" if tries[name] < engine.tries else "given up"
                    why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                    if codes := re.search(r"\w+\(-\d+\)", str(error)):  # such as SIGKILL(-9)
                        why = f"its process ended with {codes[0]}"
                    say(console, f"{name} came to no end, and is {again} ({why})")
            if not done:
                time.sleep(POLL)
    finally:
        engine.stop([task for task in tasks.values() if not task.done()])
