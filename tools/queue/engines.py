"""Engines that do runs: this process, processes here, SLURM's jobs, or Ray's tasks.

A run is one task of loky, of submitit, or of Ray, which places it and, if it can, restarts it
when its process dies.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from effconv_core.io.atomic import open_to_append
from rich.console import Console

from tools.queue.run_list import Run, work

ROOT = Path(__file__).parents[2]
TRIES = 3  # of a run whose process dies
ORDER = 60.0  # seconds that runs have to end in order once they are told to
WATCH = 0.5  # seconds between two looks at the parent


@dataclass(frozen=True)
class Engine:
    """What does runs.

    Attributes:
        submit: takes runs, and returns a task of each: a `concurrent.futures.Future`, or what has
            its `done`, `exception` and `result`, which is that of `work`.
        width: how many it takes at a time.
        tries: how often a run is handed to it that came to no end.
        stop: ends it; takes the tasks that are not over.
    """

    submit: Callable[[Sequence[Run]], list[Any]]
    width: int
    tries: int
    stop: Callable[[Sequence[Any]], None]


def here(path: Path, console: Console) -> Engine:
    """Do runs in this process, one after another."""

    def submit(runs: Sequence[Run]) -> list[Any]:
        task: Future = Future()
        task.set_result(work(path.absolute().parent / runs[0].name, runs[0], console))
        return [task]

    return Engine(submit, width=1, tries=1, stop=lambda _: None)


def local(path: Path, workers: int) -> Engine:
    """Do runs in processes here, each with its own GPU, as long as there are some.

    A killed process breaks loky's executor, so each process has one to itself, and the others go
    on. What they write goes to files beside the list.
    """
    import loky

    others = set(active_children())
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    # More threads than cores would slow each other down.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // workers))
    gpus = _visible_gpus()
    slots: dict[int, tuple[loky.ProcessPoolExecutor, Future]] = {}

    def begin(number: int) -> loky.ProcessPoolExecutor:
        own = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        log = path.absolute().with_suffix(f".worker-{number + 1}.log")
        open_to_append(log).close()  # refused here, where it is a link, and not in a process
        return loky.ProcessPoolExecutor(
            max_workers=1,
            env={"OMP_NUM_THREADS": threads, **own},
            initializer=_begin_worker,
            initargs=(os.getpid(), log),
        )

    def submit(runs: Sequence[Run]) -> list[Any]:
        tasks = []
        for run in runs:
            number = next(n for n in range(workers) if n not in slots or slots[n][1].done())
            executor = slots[number][0] if number in slots else begin(number)
            given = work, path.absolute().parent / run.name, run
            try:
                task = executor.submit(*given)
            except BrokenProcessPool:
                executor.shutdown()
                executor = begin(number)
                task = executor.submit(*given)
            slots[number] = executor, task
            tasks.append(task)
        return tasks

    def stop(tasks: Sequence[Any]) -> None:
        if tasks:
            for process in set(active_children()) - others:
                process.terminate()
            wait(tasks, ORDER)
        for executor, _ in slots.values():
            executor.shutdown(kill_workers=True)

    return Engine(submit, width=workers, tries=TRIES, stop=stop)


def _begin_worker(parent: int, log: Path) -> None:
    """Write to a log from now on, and end in order when told to or when the parent is gone."""
    with open_to_append(log) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all, and the parent tells
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os._exit(1)  # nobody waits for what it does; files appear whole, so nothing is lost

    threading.Thread(target=watch, daemon=True).start()


def _visible_gpus() -> list[str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(number) for number in range(torch.cuda.device_count())]


class SlurmJob:
    """The function of a SLURM job; it is requeued at the time limit or when preempted."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run

    def __call__(self) -> str | None:
        """Do the run, or what is left of it."""
        return work(self.folder, self.run)

    def checkpoint(self) -> Any:
        """Return what submitit queues in the place of this job."""
        import submitit

        return submitit.helpers.DelayedSubmission(SlurmJob(self.folder, self.run))


def slurm(path: Path, workers: int, minutes: int, parameters: Sequence[str]) -> Engine:
    """Submit runs as arrays of jobs, which go on also where this process ends."""
    try:
        import submitit
    except ImportError as error:
        raise ValueError("launcher is 'slurm', which needs `pip install submitit`") from error
    executor = submitit.AutoExecutor(path.absolute().with_suffix(".jobs"), cluster="slurm")
    given = dict(text.split("=", 1) for text in parameters)
    executor.update_parameters(
        timeout_min=minutes,
        name=path.stem,
        slurm_array_parallelism=workers,
        slurm_additional_parameters=given,
    )

    def submit(runs: Sequence[Run]) -> list[Any]:
        with executor.batch():
            return [
                executor.submit(SlurmJob(path.absolute().parent / run.name, run)) for run in runs
            ]

    def leave(jobs: Sequence[Any]) -> None:
        if jobs:
            names = " ".join(job.job_id for job in jobs)
            print(f"the jobs {names} go on in SLURM; scancel stops them")

    return Engine(submit, width=sys.maxsize, tries=TRIES, stop=leave)


def ray(path: Path, workers: int, gpus: float) -> Engine:
    """Submit runs as tasks of Ray, which begins them again where their process is killed."""
    try:
        import ray
    except ImportError as error:
        raise ValueError("launcher is 'ray', which needs `pip install ray`") from error
    places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ours = not ray.is_initialized()
    if ours:
        environment = {"env_vars": {"PYTHONPATH": places}}
        ray.init(log_to_driver=False, include_dashboard=False, runtime_env=environment)
    remote = ray.remote(max_retries=TRIES - 1, num_cpus=1, num_gpus=gpus)(work)
    references: dict[Any, Any] = {}

    def submit(runs: Sequence[Run]) -> list[Any]:
        begun = [remote.remote(path.absolute().parent / run.name, run) for run in runs]
        tasks = [reference.future() for reference in begun]
        references.update(zip(tasks, begun, strict=True))
        return tasks

    def stop(tasks: Sequence[Any]) -> None:
        left = [references[task] for task in tasks]
        for reference in left:
            ray.cancel(reference)
        if left:
            ray.wait(left, num_returns=len(left), timeout=ORDER)
        if ours:
            ray.shutdown()

    return Engine(submit, width=workers, tries=1, stop=stop)
