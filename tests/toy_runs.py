"""Runs of lists that take a moment, leave a trace, fail, or kill the process that does them."""

import json
import os
import re
import signal
import time
from pathlib import Path

from effconv_core.runs.owner import LOCK
from effconv_core.runs.reader import read_result

from tools.queue.run_list import Run

STEPS = 12


def count(folder, console, steps, seconds=0.03, bad=False, device="cpu"):
    """Do some steps, go on where a killed process stopped, and tell who did which."""
    done = folder / "done"
    step = int(done.read_text()) if done.exists() else 0
    while step < steps:
        if bad and step == 2:
            raise ValueError("the third step cannot be done")
        with (folder / "trace").open("a") as file:
            file.write(f"{os.getpid()} {step}\n")
        time.sleep(seconds)
        step += 1
        (folder / "partial").write_text(str(step))
        (folder / "partial").replace(done)
    _finish(folder, {"sum": sum(range(steps))})


def sums(folder, console, names):
    """Add what other runs have found."""
    _finish(folder, {"sum": sum(read_result(folder.parent / name)["sum"] for name in names)})


def kills(folder, console, unless=""):
    """Kill the process, as a lack of memory does, until the file is there that is named."""
    with (folder / "tries").open("a") as file:
        file.write("x")
    if not unless or not Path(unless).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    _finish(folder, {"sum": 0})


def waits(folder, console):
    """Wait to be told to end, and then end in order."""
    try:
        (folder / "partial").write_text(str(os.getpid()))
        (folder / "partial").replace(folder / "begun")
        time.sleep(600)
    finally:
        (folder / "in order").touch()


def tells(folder, console, names):
    """Tell its environment, once all runs are begun that are named."""
    (folder / "begun").touch()
    while not all((folder.parent / name / "begun").exists() for name in names):
        time.sleep(0.01)
    console.print("a word to the log")
    known = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
    _finish(folder, known)


def compiles(folder, console, size):
    """Count the graphs that a function is compiled to."""
    import torch

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def double(x):
        return 2 * x

    torch.compile(double, backend=backend, dynamic=False)(torch.ones(size))
    _finish(folder, {"graphs": len(graphs)})


def lies(folder, console):
    """Leave no result."""


def _finish(folder, result):
    (folder / "partial").write_text(json.dumps(result))
    (folder / "partial").replace(folder / "result.json")


def counting(number, **changes):
    """Return runs of some steps each."""
    return [
        Run(f"run{i}", "tests.toy_runs:count", {"steps": STEPS + i, **changes})
        for i in range(number)
    ]


def trace(folder):
    """Return who did which step, in order."""
    return [tuple(map(int, line.split())) for line in (folder / "trace").read_text().splitlines()]


def check(folder, runs):
    """Check that every run has its result, and that at no time two worked on one."""
    for run in runs:
        steps = run.arguments["steps"]
        assert read_result(folder / run.name) == {"sum": sum(range(steps))}
        rows = trace(folder / run.name)
        owners = [pid for i, (pid, _) in enumerate(rows) if not i or rows[i - 1][0] != pid]
        assert len(owners) == len(set(owners)), "a worker came back to a run that another had taken"
        done = [step for _, step in rows]
        assert set(done) == set(range(steps))
        # A step is done again only by who takes over from a killed worker.
        assert len(done) - steps <= len(owners) - 1
        assert not (folder / run.name / LOCK).exists()


def at_work(folder):
    """Return the processes that have locked runs of a list, among them some that were killed."""
    said = [path.read_text() for path in folder.glob(f"*/{LOCK}") if path.exists()]
    return [int(number) for text in said for number in re.findall(r"process (\d+) on", text)]
