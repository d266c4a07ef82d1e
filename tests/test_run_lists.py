"""Lists of runs: nothing twice, nothing lost, whoever starts the workers and whoever kills them."""

import importlib.util
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import torch._dynamo
from effconv_core.claim import CLAIMS
from effconv_core.run_folder import read_result
from rich.console import Console

from tools import run_list
from tools.launch import Launch, launch
from tools.run_list import Run, failure, read_list, state, work, write_list
from tools.sweep import Search, runs_of

ROOT = Path(__file__).parents[1]
STEPS = 12

# A run of a few steps that goes on where it stopped, and leaves a trace of who did which step.
TOY = """
import json, os, time

def count(folder, console, steps, seconds=0.03, bad=False):
    done = folder / "done"
    step = int(done.read_text()) if done.exists() else 0
    while step < steps:
        if bad and step == 2:
            raise ValueError("the third step cannot be done")
        with (folder / "trace").open("a") as file:
            file.write(f"{os.getpid()} {step}\\n")
        time.sleep(seconds)
        step += 1
        (folder / "partial").write_text(str(step))
        (folder / "partial").replace(done)
    (folder / "partial").write_text(json.dumps({"sum": sum(range(steps))}))
    (folder / "partial").replace(folder / "result.json")

def compiles(folder, console, size):
    import torch
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def double(x):
        return 2 * x

    torch.compile(double, backend=backend, dynamic=False)(torch.ones(size))
    (folder / "result.json").write_text(json.dumps({"graphs": len(graphs)}))

def lies(folder, console):
    pass

def sums(folder, console, names):
    results = [folder.parent / name / "result.json" for name in names]
    total = sum(json.loads(path.read_text())["sum"] for path in results)
    (folder / "result.json").write_text(json.dumps({"sum": total}))
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A folder for a list, with the functions of its runs where every worker finds them."""
    (tmp_path / "toy_runs.py").write_text(TOY)
    places = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", places)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(run_list, "POLL", 0.05)
    sys.modules.pop("toy_runs", None)
    return tmp_path / "runs"


def counting(number, **changes):
    return [
        Run(f"run{i}", "toy_runs:count", {"steps": STEPS + i, **changes}) for i in range(number)
    ]


def trace(folder):
    return [tuple(map(int, line.split())) for line in (folder / "trace").read_text().splitlines()]


def check(folder, runs):
    """Every run has its result, and at no time did two work on one."""
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


def quiet():
    return Console(file=io.StringIO())


def test_a_worker_does_all_runs_and_a_second_one_none(toys):
    runs, path = counting(3, seconds=0), toys / "list.json"
    write_list(path, runs)
    assert read_list(path) == runs
    ended = []
    work(path, quiet(), on_end=ended.append)
    assert ended == ["run0", "run1", "run2"]
    work(path, quiet(), on_end=ended.append)
    assert len(ended) == 3
    check(toys, runs)


def test_every_run_of_a_long_list_is_compiled(toys):
    number = torch._dynamo.config.recompile_limit + 2
    runs = [Run(f"run{i}", "toy_runs:compiles", {"size": 2 + i}) for i in range(number)]
    write_list(toys / "list.json", runs)
    work(toys / "list.json", quiet())
    assert [read_result(toys / run.name) for run in runs] == [{"graphs": 1}] * number


def test_a_failed_run_is_told_and_does_not_stop_the_rest(toys):
    runs = counting(3, seconds=0)
    runs[1] = Run("run1", "toy_runs:count", {"steps": 5, "bad": True})
    runs += [
        Run("after", "toy_runs:sums", {"names": ["run1"]}, ("run1",)),
        Run("lies", "toy_runs:lies"),
        Run("unknown", "toy_runs:no_such"),
    ]
    console = quiet()
    assert launch(toys / "list.json", runs, Launch(), console) == 1
    said = console.file.getvalue()
    states = [state(toys / "list.json", run) for run in runs]
    assert states == ["finished", "failed", "finished", "failed", "failed", "failed"]
    assert "run1 failed: ValueError: the third step cannot be done" in said
    assert "after failed: it needs run1, which failed" in said
    assert "ended without writing" in failure(toys / "list.json", runs[4])
    assert "4 of 6 runs failed" in said.replace("\n", " ")
    # Once the cause is gone, the same command tries again what failed, and that alone.
    runs[1] = Run("run1", "toy_runs:count", {"steps": 5, "seconds": 0})
    before = trace(toys / "run0")
    assert launch(toys / "list.json", runs[:4], Launch(), quiet()) == 0
    assert read_result(toys / "after") == {"sum": 10}
    assert trace(toys / "run0") == before


def test_a_run_comes_after_those_that_it_needs(toys):
    runs = [Run("sum", "toy_runs:sums", {"names": ["run0", "run1"]}, ("run0", "run1"))]
    runs += counting(2, seconds=0)
    assert launch(toys / "list.json", runs, Launch(workers=1), quiet()) == 0
    assert read_result(toys / "sum") == {"sum": sum(range(12)) + sum(range(13))}


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ([Run("a", "b:c"), Run("a", "b:c")], "2 runs of 1 names"),
        ([Run("a", "b:c", {}, ("z",))], "need z, which it lacks"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(runs, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        write_list(tmp_path / "list.json", runs)


def test_a_run_that_kills_its_workers_comes_last(toys):
    runs, path = counting(3, seconds=0), toys / "list.json"
    write_list(path, runs)
    claims = toys / "run0" / CLAIMS
    claims.mkdir(parents=True)
    (claims / "000001.json").write_text("{}")
    (claims / "000001.released").touch()
    ended = []
    work(path, quiet(), on_end=ended.append)
    assert ended == ["run1", "run2", "run0"]


def worker(path):
    sys.path.insert(0, str(path.parents[1]))
    work(path, quiet())


@pytest.mark.parametrize(
    "options", [Launch(workers=2), Launch(launcher="slurm"), Launch(launcher="ray")]
)
def test_workers_of_one_gpu_each_take_no_numbered_one(toys, options):
    runs = [Run("run0", "toy_runs:count", {"steps": 1, "device": "cuda:1"})]
    with pytest.raises(ValueError, match="device is 'cuda:1', but each worker sees one GPU alone"):
        launch(toys / "list.json", runs, options, quiet())
    assert not (toys / "list.json").exists()


@pytest.mark.faults
def test_workers_killed_at_random_lose_nothing_and_do_nothing_twice(toys):
    # Long enough that a slow machine, which seldom forks, kills often all the same.
    runs, path = counting(8, seconds=0.2), toys / "list.json"
    write_list(path, runs)
    context, source, kills = multiprocessing.get_context("fork"), random.Random(0), 0
    workers = []
    while any(state(path, run) != "finished" for run in runs):
        workers = [process for process in workers if process.is_alive()]
        while len(workers) < 3:
            workers.append(context.Process(target=worker, args=(path,)))
            workers[-1].start()
        time.sleep(source.uniform(0.05, 0.3))
        if kills < 25:
            victim = workers.pop(source.randrange(3))
            victim.kill()
            victim.join()
            kills += victim.exitcode == -signal.SIGKILL
    for process in workers:
        process.join()
        assert process.exitcode == 0
    assert kills >= 8
    check(toys, runs)


@pytest.mark.slow
def test_local_workers_one_of_which_is_killed(toys):
    runs, console = counting(4, seconds=0.2), quiet()
    killed = []

    def kill_one(_):
        while not killed:
            held = [run for run in runs if state(toys / "l.json", run) == "held"]
            for run in held[:1]:
                latest = max((toys / run.name / CLAIMS).glob("*.json"))
                killed.append(json.loads(latest.read_text())["pid"])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.01)

    options = Launch(workers=2)
    assert launch(toys / "l.json", runs, options, console, on_end=kill_one) == 0
    assert f"(process {killed[0]}) ended with signal SIGKILL; the others go on" in (
        console.file.getvalue()
    )
    check(toys, runs)
    assert (toys / "l.worker-1.log").exists()


# A SLURM of one machine that runs each task of a job array in the background.
SBATCH = """#!/bin/bash
script="${@: -1}"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 "$last"); do
  SLURM_JOB_ID=$((100 + task)) SLURM_ARRAY_JOB_ID=100 SLURM_ARRAY_TASK_ID=$task \\
  SLURM_ARRAY_TASK_COUNT=$((last + 1)) SLURM_LOCALID=0 SLURM_PROCID=0 SLURM_NTASKS=1 \\
  SLURM_JOB_NODELIST=here SLURM_NODEID=0 SLURM_JOB_NUM_NODES=1 \\
    bash "$script" > /dev/null 2>&1 < /dev/null &
done
echo "Submitted batch job 100"
"""
SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do
  case "$1" in --output|--error) shift 2;; *) shift;; esac
done
exec "$@"
"""
SACCT = "#!/bin/bash\necho 'JobID|State|NodeList'\n"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the make-believe SLURM is written for bash")
def test_jobs_of_slurm(toys, monkeypatch):
    commands = toys.parent / "slurm"
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    runs = counting(4)
    options = Launch(launcher="slurm", workers=2, minutes=5, slurm=("partition=gpu", "mem=8G"))
    assert launch(toys / "list.json", runs, options, quiet()) == 0
    check(toys, runs)
    asked = next((toys / "list.jobs").glob("*.sh")).read_text()
    for line in ("--array=0-1%2", "--time=5", "--partition=gpu", "--mem=8G", "--job-name=list"):
        assert f"#SBATCH {line}\n" in asked


@pytest.mark.slow
def test_tasks_of_a_local_ray_one_of_which_is_killed(toys):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed; hatch run ray:test installs it and runs this")
    import ray

    runs, killed = counting(5, seconds=0.2), []

    def kill_one(_):
        held = [run for run in runs if state(toys / "list.json", run) == "held"]
        if held and not killed:
            path = max((toys / held[0].name / CLAIMS).glob("*.json"))
            killed.append(json.loads(path.read_text())["pid"])
            os.kill(killed[0], signal.SIGKILL)

    try:
        options = Launch(launcher="ray", workers=2)
        assert launch(toys / "list.json", runs, options, quiet(), on_end=kill_one) == 0
    finally:
        ray.shutdown()
    assert killed
    check(toys, runs)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"workers": 0}, "workers is 0; it must be at least 1"),
        ({"slurm": ("gpu",)}, "slurm has 'gpu'; write parameters as NAME=VALUE"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Launch(**options)


def test_a_sweep_is_every_seed_budget_and_recipe_and_refuses_what_a_search_refuses(tmp_path):
    options = Search(data="demo", seeds=(0, 1), budgets=(9000, 10684), recipes=("default", "paper"))
    runs = runs_of(options, ["--train-epochs", "1"])
    assert len({run.name for run in runs}) == 8
    assert runs[0].name == "demo-demo-9000-default-seed0"
    assert runs[7].arguments["arguments"] == [
        "demo",
        "--recipe=paper",
        "--seed=1",
        "--search.seed=1",
        "--budget=10684",
        "--train-epochs",
        "1",
    ]
    with pytest.raises(ValueError, match="recipe 'best' does not exist"):
        runs_of(Search(data="demo", recipes=("best",)), [])
