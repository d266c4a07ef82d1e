"""Tasks in several processes: their order, and what a kill and a Ctrl-C leave."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from effconv_data.ordered_map import in_order

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes fork on Linux alone")


def square(number):
    time.sleep(0.01 * (number % 3))
    return number**2, os.getpid()


@pytest.mark.parametrize("workers", [1, 3, None])
def test_results_come_in_the_order_of_the_tasks(workers):
    found, processes = zip(*in_order(square, [(n,) for n in range(9)], workers), strict=True)
    assert found == tuple(n**2 for n in range(9))
    count = workers or len(os.sched_getaffinity(0))
    assert len(set(processes)) <= count
    assert (os.getpid() in processes) == (count == 1)


def test_few_tasks_are_drawn_ahead():
    drawn = []

    def tasks():
        for number in range(50):
            drawn.append(number)
            yield (number,)

    results = in_order(square, tasks(), 2)
    next(results)
    assert len(drawn) <= 4
    results.close()


def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error_with_a_remedy():
    with pytest.raises(ChildProcessError, match="worker process was killed.*run the same again"):
        list(in_order(die, [(1,), (2,)], 2))


PROGRAM = """
from effconv_data.ordered_map import in_order
print("begun", flush=True)
for _ in in_order(bytes, [(20_000_000,)] * 100_000, 2):
    pass
"""
AMID_A_FORK = """
import os, signal
from effconv_data.ordered_map import in_order
os.register_at_fork(after_in_parent=lambda: os.killpg(0, signal.SIGINT))
print("begun", flush=True)
print(list(in_order(bytes, [(1,)] * 9, 2)))
"""


def interrupted(program, seconds=None):
    """Run a program and send Ctrl-C so long after it has begun; give its errors when it has ended.

    The signal reaches its workers too, as a terminal's does.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "begun\n"
        if seconds is not None:
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGINT)
        # It ends only when the workers have closed these too.
        _, errors = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGINT, errors
    return errors


def test_ctrl_c_in_a_terminal_ends_all_processes():
    source = random.Random(0)
    for _ in range(2):  # the large results make it likely to come amid one
        assert interrupted(PROGRAM, 0.3 + source.uniform(0, 0.2)).count("Traceback") == 1


def test_ctrl_c_while_a_worker_is_started_is_not_lost():
    assert interrupted(AMID_A_FORK).count("Traceback") == 1
