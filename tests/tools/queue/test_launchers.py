"""Lists of runs: nothing twice, nothing lost, whoever does them and whoever is killed."""

import io
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from effconv_core.cli.errors import run_command
from effconv_core.runs.lock import claim
from effconv_core.runs.owner import LOCK
from effconv_core.runs.reader import read_result
from rich.console import Console

from tests.toy_runs import at_work, check, counting, trace
from tools.queue import run_list
from tools.queue.engines import TRIES
from tools.queue.launchers import Launch, launch
from tools.queue.run_list import Run, end, failure

FORK = multiprocessing.get_context("fork") if sys.platform != "win32" else None
linux = pytest.mark.skipif(sys.platform != "linux", reason="kills and /proc are of Linux")


def quiet():
    return Console(file=io.StringIO(), width=1000)


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def children(pid):
    """Return the processes below a process, on Linux."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] not in "ZX":
                found += [int(path.parent.name), *children(int(path.parent.name))]
    return found


@contextmanager
def command(path, runs, options):
    """Start the command of a list in a process of its own; what is left of it is killed."""
    log = path.parent.parent / "command.txt"

    def run():
        sys.stdout = sys.stderr = file = log.open("a", buffering=1)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        os.setpgid(0, 0)
        code = run_command("toys", lambda: launch(path, runs, options, Console()))
        sys.exit(code)

    process = FORK.Process(target=run)
    process.start()
    try:
        yield process, log
    finally:
        for pid in [process.pid, *children(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.join()


# In this process, where one worker is enough.


def test_a_failed_run_is_told_and_does_not_stop_the_rest(tmp_path):
    path, runs = tmp_path / "list.json", counting(3, seconds=0)
    runs[1] = Run("run1", "tests.toy_runs:count", {"steps": 5, "bad": True})
    runs += [
        Run("after the next", "tests.toy_runs:sums", {"names": ["after"]}, ("after",)),
        Run("after", "tests.toy_runs:sums", {"names": ["run1"]}, ("run1",)),
        Run("lies", "tests.toy_runs:lies"),
        Run("unknown", "tests.toy_runs:no_such"),
    ]
    console, ended = quiet(), []
    assert launch(path, runs, Launch(), console, on_end=lambda run: ended.append(run.name)) == 1
    ends = [end(tmp_path / run.name) for run in runs]
    assert ends == ["finished", "failed", "finished", *["failed"] * 4]
    assert sorted(ended) == sorted(run.name for run in runs)
    assert "ValueError: the third step cannot be done" in failure(path, runs[1])
    assert failure(path, runs[1]) in console.file.getvalue()
    assert "run1" in failure(path, runs[4])
    assert "5 of 7 runs failed" in console.file.getvalue()
    # Once the cause is gone, the same command tries again what failed, and that alone.
    runs[1] = Run("run1", "tests.toy_runs:count", {"steps": 5, "seconds": 0})
    before = trace(tmp_path / "run0")
    assert launch(path, runs[:5], Launch(), quiet()) == 0
    assert read_result(tmp_path / "after the next") == {"sum": 10}
    assert trace(tmp_path / "run0") == before


SUM = Run("sum", "tests.toy_runs:sums", {"names": ["run0", "run1"]}, ("run0", "run1"))


def test_a_run_comes_after_those_that_it_needs(tmp_path):
    assert launch(tmp_path / "list.json", [SUM, *counting(2, seconds=0)], Launch(), quiet()) == 0
    assert read_result(tmp_path / "sum") == {"sum": sum(range(12)) + sum(range(13))}


@linux
def test_a_run_that_killed_the_command_comes_last_when_it_is_given_again(tmp_path):
    path, good = tmp_path / "toys" / "list.json", tmp_path / "good"
    runs = [Run("bad", "tests.toy_runs:kills", {"unless": str(good)}), *counting(2, seconds=0)]
    for finished in (0, 2):
        with command(path, runs, Launch()) as (process, _):
            process.join()
            assert process.exitcode == -signal.SIGKILL
        assert sum(end(path.parent / run.name) is not None for run in runs) == finished
    good.touch()
    assert launch(path, runs, Launch(), quiet()) == 0
    assert (path.parent / "bad" / "tries").read_text() == "xxx"


def test_a_run_that_another_command_does_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(run_list, "PATIENCE", 0.1)
    runs, console = counting(3, seconds=0), quiet()
    with claim(tmp_path / "run1"):
        assert launch(tmp_path / "list.json", runs, Launch(), console) == 1
    assert [end(tmp_path / run.name) for run in runs] == ["finished", None, "finished"]
    assert f"process {os.getpid()}" in console.file.getvalue()
    assert "1 of 3 runs are left: run1" in console.file.getvalue()
    assert launch(tmp_path / "list.json", runs, Launch(), quiet()) == 0
    check(tmp_path, runs)


@pytest.mark.parametrize(
    "options", [Launch(workers=2), Launch(launcher="slurm"), Launch(launcher="ray")]
)
def test_workers_of_one_gpu_each_take_no_numbered_one(tmp_path, options):
    runs = counting(1, device="cuda:1")
    with pytest.raises(ValueError, match="cuda:1"):
        launch(tmp_path / "list.json", runs, options, quiet())
    assert not (tmp_path / "list.json").exists()


@pytest.mark.parametrize(
    ("options", "named"), [({"workers": 0}, "workers is 0"), ({"slurm": ("gpu",)}, "'gpu'")]
)
def test_a_launch_that_cannot_be_is_refused(options, named):
    with pytest.raises(ValueError, match=named):
        Launch(**options)


# In processes here.


@pytest.mark.slow
def test_workers_have_a_gpu_and_a_log_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    names = ["first", "second"]
    runs = [Run(name, "tests.toy_runs:tells", {"names": names}) for name in names]
    assert launch(tmp_path / "list.json", runs, Launch(workers=2), quiet()) == 0
    told = [read_result(tmp_path / name) for name in names]
    assert sorted(each["CUDA_VISIBLE_DEVICES"] for each in told) == ["3", "5"]
    assert {each["OMP_NUM_THREADS"] for each in told} == {"7"}
    logs = [(tmp_path / f"list.worker-{number}.log").read_text() for number in (1, 2)]
    assert all("a word to the log" in log for log in logs)


@pytest.mark.slow
@linux
def test_local_workers_one_of_which_is_killed(tmp_path):
    path, runs, console = tmp_path / "list.json", counting(4, seconds=0.1), quiet()
    killed, others = [], set(children(os.getpid()))

    def kill_one():
        wait_until(lambda: list(tmp_path.glob("*/done")))
        killed.append(at_work(tmp_path)[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert launch(path, [SUM, *runs], Launch(workers=2), console) == 0
    killer.join()
    assert "SIGKILL" in console.file.getvalue()
    check(tmp_path, runs)
    assert read_result(tmp_path / "sum") == {"sum": sum(range(12)) + sum(range(13))}
    done_by = {pid for run in runs for pid, _ in trace(tmp_path / run.name)}
    # The other worker was left alone, so there was need of one more at most.
    assert len(done_by | {killed[0]}) <= 3
    assert not [pid for pid in done_by if alive(pid)]
    new = set(children(os.getpid())) - others
    # The trackers of semaphores end with this process.
    assert all("resource_tracker" in Path(f"/proc/{pid}/cmdline").read_text() for pid in new)


@pytest.mark.slow
@linux
def test_a_run_that_kills_its_workers_is_given_up_after_some_and_the_rest_is_done(tmp_path):
    path, good = tmp_path / "list.json", tmp_path / "good"
    bad = Run("bad", "tests.toy_runs:kills", {"unless": str(good)})
    after = Run("after", "tests.toy_runs:sums", {"names": ["bad"]}, ("bad",))
    runs, console = [bad, after, *counting(4, seconds=0.01)], quiet()
    assert launch(path, runs, Launch(workers=2), console) == 1
    assert (tmp_path / "bad" / "tries").read_text() == "x" * TRIES
    check(tmp_path, runs[2:])
    assert [end(tmp_path / run.name) for run in runs[:2]] == [None, None]
    assert "2 of 6 runs are left: bad, after" in console.file.getvalue()
    assert console.file.getvalue().count("SIGKILL") == TRIES
    good.touch()
    assert launch(path, runs, Launch(), quiet()) == 0
    assert read_result(tmp_path / "after") == {"sum": 0}


@pytest.mark.slow
@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_signals_end_all_in_order_with_nothing_left_running(number, workers, tmp_path):
    path = tmp_path / "toys" / "list.json"
    runs = [Run(f"run{i}", "tests.toy_runs:waits") for i in range(3)]
    with command(path, runs, Launch(workers=workers)) as (process, log):
        wait_until(lambda: len(list(path.parent.glob("*/begun"))) == workers)
        begun = [int(file.read_text()) for file in path.parent.glob("*/begun")]
        below = children(process.pid)
        assert set(begun) <= {process.pid, *below}
        if number == signal.SIGINT:  # Ctrl-C reaches all processes of the terminal
            os.killpg(process.pid, number)
        else:
            os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == 128 + number
        wait_until(lambda: not any(alive(pid) for pid in below))
        assert f"stopped by {number.name}" in log.read_text()
        assert "Traceback" not in log.read_text()
    assert len(list(path.parent.glob("*/in order"))) == workers
    assert not list(path.parent.glob(f"*/{LOCK}"))


@pytest.mark.slow
@linux
def test_workers_end_with_a_command_that_is_killed_and_another_goes_on(tmp_path):
    path, runs = tmp_path / "toys" / "list.json", counting(4, seconds=0.15)
    with command(path, runs, Launch(workers=2)) as (process, _):
        wait_until(lambda: len(at_work(path.parent)) == 2)
        workers = at_work(path.parent)
        assert process.pid not in workers
        process.kill()
        process.join()
        wait_until(lambda: not any(alive(pid) for pid in workers))
    assert launch(path, runs, Launch(), quiet()) == 0
    check(path.parent, runs)


@pytest.mark.faults
@pytest.mark.slow
@linux
def test_kills_at_random_lose_nothing_and_do_nothing_twice(tmp_path):
    path, runs = tmp_path / "toys" / "list.json", counting(8, seconds=0.2)
    source, kills, commands = random.Random(0), {"worker": 0, "command": 0}, 0
    while any(end(path.parent / run.name) is None for run in runs):
        commands += 1
        assert commands < 40
        with command(path, runs, Launch(workers=3)) as (process, log):
            while process.is_alive():
                process.join(source.uniform(0.05, 0.6))
                below = set(children(process.pid))
                workers = sorted(below & set(at_work(path.parent)))
                if kills["command"] < 4 and workers and source.random() < 0.15:
                    process.kill()
                    kills["command"] += 1
                elif kills["worker"] < 16 and workers:
                    os.kill(source.choice(workers), signal.SIGKILL)
                    kills["worker"] += 1
            wait_until(lambda: not any(alive(pid) for pid in below))  # noqa: B023
            assert process.exitcode in (0, 1, -signal.SIGKILL), log.read_text()
    assert kills["worker"] >= 8
    assert kills["command"] >= 1
    check(path.parent, runs)


@pytest.mark.slow
@linux
def test_two_commands_on_one_list_do_nothing_twice(tmp_path):
    path, runs = tmp_path / "toys" / "list.json", counting(6, seconds=0.05)
    two, one = Launch(workers=2), Launch()
    with command(path, runs, two) as (first, _), command(path, runs, one) as (second, _):
        first.join()
        second.join()
        assert first.exitcode == second.exitcode == 0
    check(path.parent, runs)
    assert all(len({pid for pid, _ in trace(path.parent / run.name)}) == 1 for run in runs)
