"""Workers for a list of runs: in this process, in others here, SLURM's jobs, or Ray's tasks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from effconv_core.io.atomic import open_to_append
from effconv_core.io.console import PlainConsole
from rich.console import Console

from tools.run_list import Run, failure, read_list, state, work, write_list

ROOT = Path(__file__).parent.parent
POLL = 0.5  # seconds between two looks at the runs


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Who does the runs."""

    launcher: Literal["local", "slurm", "ray"] = "local"
    """local: processes here, or this one where one worker is enough; slurm: jobs, through submitit;
    ray: tasks of the cluster that RAY_ADDRESS names, or of this machine. The folders of the runs
    must be at the same path on all machines."""
    workers: int = 1
    """How many work at a time; each does runs until none is left."""
    minutes: int = 24 * 60
    """Time limit of a SLURM job; one that reaches it is queued again."""
    slurm: tuple[str, ...] = ()
    """Further parameters of sbatch, such as `partition=gpu gpus-per-node=1 cpus-per-task=8`."""
    gpus: float = 0.0
    """GPUs of each of Ray's workers; SLURM's are told by `--slurm`."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; it must be at least 1, so raise it")
        if wrong := [text for text in self.slurm if "=" not in text]:
            raise ValueError(f"slurm has {wrong[0]!r}; write parameters as NAME=VALUE")


Ended = Callable[[], str | None]
"""Tells how a worker ended: empty if all was well, a sentence if not; None while it is at work."""


@dataclass(frozen=True)
class Workers:
    """Workers that were started, each with what tells how it ended, and what stops them all."""

    ended: Sequence[Ended]
    stop: Callable[[], None]


def launch(
    path: Path,
    runs: Sequence[Run],
    options: Launch,
    console: Console,
    on_end: Callable[[Run], None] = lambda _: None,
    beside: Sequence[str] = (),
) -> int:
    """Let all runs of a list be done; give the exit status, which is 1 if some are not.

    Args:
        path: of the list, which is written; finished runs in its folders are kept.
        runs: what is to be done.
        options: who does it.
        console: told what ends, and how.
        on_end: told each run that has ended.
        beside: names of other files that the command of this list writes into its folder.

    Raises:
        FileExistsError: if the folder holds files that would be replaced and are not of a list.
        ValueError: if workers that see one GPU each are to run on one of a number.
    """
    one_gpu_each = options.launcher != "local" or options.workers > 1
    numbered = {str(run.arguments.get("device")) for run in runs if one_gpu_each}
    for device in sorted(name for name in numbered if name.startswith("cuda:")):
        raise ValueError(
            f"device is {device!r}, but each worker sees one GPU alone; pass 'cuda', and choose "
            "GPUs by CUDA_VISIBLE_DEVICES"
        )
    write_list(path, runs, beside)
    ended = {run.name for run in runs if state(path, run) == "finished"}
    if ended:
        console.print(f"{len(ended)} of {len(runs)} runs were finished before")

    def look(_: str = "") -> None:
        for run in runs:
            if run.name not in ended and (how := state(path, run)) in ("finished", "failed"):
                ended.add(run.name)
                why = f": {failure(path, run)}" if how == "failed" else ""
                sentence = f"{len(ended)}/{len(runs)} {run.name} {how}{why}"
                on_end(run)
                console.print(sentence, soft_wrap=True)

    if len(ended) < len(runs):
        if options.launcher == "local" and options.workers == 1:
            work(path, console, on_end=look)
        else:
            start = {"local": _local, "slurm": _slurm, "ray": _ray}[options.launcher]
            _follow(start(path, options), look, console)
    look()
    left = [run.name for run in runs if state(path, run) not in ("finished", "failed")]
    failed = [run.name for run in runs if state(path, run) == "failed"]
    if failed:
        console.print(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")
    if left:
        console.print(
            f"{len(left)} of {len(runs)} runs are left, because their workers ended: "
            f"{', '.join(left)}; the same command goes on with them"
        )
    return 1 if failed or left else 0


def _follow(workers: Workers, look: Callable[[], None], console: Console) -> None:
    """Tell what ends until all workers have."""
    at_work = dict(enumerate(workers.ended, 1))
    try:
        while at_work:
            for number, ended in list(at_work.items()):
                how = ended()
                if how is not None:
                    del at_work[number]
                if how:
                    console.print(f"worker {number} {how}", markup=False, soft_wrap=True)
            look()
            time.sleep(POLL if at_work else 0)
    except KeyboardInterrupt:
        workers.stop()
        raise


def _local(path: Path, options: Launch) -> Workers:
    """Start processes here, whose output goes to files beside the list."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    # More threads than cores would only be in each other's way.
    threads = {"OMP_NUM_THREADS": str(max(1, cores // options.workers)), **os.environ}
    gpus = _visible_gpus()
    processes = []
    for number in range(options.workers):
        own = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        with open_to_append(path.with_suffix(f".worker-{number + 1}.log")) as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tools.worker", str(path.absolute())],
                    cwd=ROOT,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**threads, **own},
                )
            )

    def how(process: subprocess.Popen) -> str | None:
        status = process.poll()
        if status is None or status == 0:
            return None if status is None else ""
        end = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return f"(process {process.pid}) ended with {end}; the others go on with its run"

    def stop() -> None:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()

    return Workers([partial(how, process) for process in processes], stop)


def _visible_gpus() -> list[str]:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(number) for number in range(torch.cuda.device_count())]


class Job:
    """What a SLURM job does; at the time limit, or when it is preempted, it is queued again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> None:
        """Work."""
        work(self.path, PlainConsole())

    def checkpoint(self) -> Any:
        """Give what submitit queues in the place of this job."""
        import submitit

        return submitit.helpers.DelayedSubmission(Job(self.path))


def _slurm(path: Path, options: Launch) -> Workers:
    """Submit jobs, which go on also where this process ends."""
    try:
        import submitit
    except ImportError as error:
        raise ValueError("launcher is 'slurm', which needs `pip install submitit`") from error
    executor = submitit.AutoExecutor(path.absolute().with_suffix(".jobs"), cluster="slurm")
    given = dict(text.split("=", 1) for text in options.slurm)
    executor.update_parameters(
        timeout_min=options.minutes, name=path.stem, slurm_additional_parameters=given
    )
    with executor.batch():
        jobs = [executor.submit(Job(path.absolute())) for _ in range(options.workers)]

    def how(job: Any) -> str | None:
        if not job.done():
            return None
        error = job.exception()
        if error is None:
            return ""
        last = str(error).strip().splitlines()[-1:]
        return f"(job {job.job_id}) ended with {job.state} {' '.join(last)}, see {job.paths.stderr}"

    def leave() -> None:
        names = " ".join(job.job_id for job in jobs)
        print(f"the jobs {names} go on in SLURM; scancel stops them")

    return Workers([partial(how, job) for job in jobs], leave)


def _ray(path: Path, options: Launch) -> Workers:
    """Start tasks of Ray, which starts them anew where their process is killed."""
    try:
        import ray
    except ImportError as error:
        raise ValueError("launcher is 'ray', which needs `pip install ray`") from error
    places = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if not ray.is_initialized():
        environment = {"env_vars": {"PYTHONPATH": places}}
        ray.init(log_to_driver=False, include_dashboard=False, runtime_env=environment)
    task = ray.remote(max_retries=-1, num_cpus=1, num_gpus=options.gpus)(_work_quietly)
    tasks = [task.remote(str(path.absolute())) for _ in range(options.workers)]

    def how(reference: Any) -> str | None:
        if not ray.wait([reference], timeout=0)[0]:
            return None
        try:
            ray.get(reference)
        except Exception as error:  # of any kind that a worker can end with
            last = str(error).strip().splitlines()[-1:]
            return f"ended with {type(error).__name__}: {' '.join(last)}"
        return ""

    def stop() -> None:
        for reference in tasks:
            ray.cancel(reference)
        ray.shutdown()

    return Workers([partial(how, reference) for reference in tasks], stop)


def _work_quietly(path: str) -> None:
    work(Path(path), PlainConsole())


def table(path: Path) -> list[tuple[str, str, str]]:
    """Give the name, the state and what else is known of each run of a list."""
    return [
        (run.name, how := state(path, run), failure(path, run) if how == "failed" else "")
        for run in read_list(path)
    ]
