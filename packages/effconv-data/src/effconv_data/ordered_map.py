"""Parallel map over tasks, in several processes."""

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

__all__ = ["HangupError", "hangup_interrupts", "in_order"]

HANGUP = getattr(signal, "SIGHUP", None)  # where there are terminals that can be closed
INTERRUPTS = [signal.SIGINT, *([] if HANGUP is None else [HANGUP])]


class HangupError(KeyboardInterrupt):
    """The terminal was closed."""


@contextmanager
def hangup_interrupts() -> Iterator[None]:
    """Raise `HangupError` when the terminal is closed; not where that is ignored, as by nohup."""
    main = threading.current_thread() is threading.main_thread()
    if HANGUP is None or not main or signal.getsignal(HANGUP) is not signal.SIG_DFL:
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(HANGUP, signal.SIG_IGN)  # the shell may send a second one
        raise HangupError

    signal.signal(HANGUP, stop)
    try:
        yield
    finally:
        signal.signal(HANGUP, signal.SIG_DFL)


def in_order(
    function: Callable[..., Any], tasks: Iterable[tuple[Any, ...]], workers: int | None = None
) -> Iterator[Any]:
    """Yield `function(*task)` for each task, in order, from several processes on Linux.

    Only a few tasks are read ahead of the results, so that both may be large.

    Args:
        function: must not touch the accelerator; nor torch, whose threads do not survive a fork.
        tasks: arguments of each call.
        workers: number of processes; None takes one per processor available to this process.

    Raises:
        ChildProcessError: if a process dies.
    """
    # Processes, because threads are slower here than one: half of the time is Python code.
    # By fork, because other ways start the user's script a second time. Elsewhere fork is missing
    # or unsafe, and daemons may have no children.
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        workers = 1
    elif workers is None:
        workers = len(os.sched_getaffinity(0))
    if isinstance(tasks, Sequence):
        workers = min(workers, len(tasks))
    if workers <= 1:
        yield from itertools.starmap(function, tasks)
        return
    waiting: deque[Any] = deque()
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), initializer=_follow_parent
    ) as pool:
        try:
            for task in tasks:
                with _interrupts_wait():
                    waiting.append(pool.submit(function, *task))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process was killed, perhaps for want of memory; free some, and run the "
                "same again"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Make an interruption raise its error after a task is handed over, which may fork a worker.

    During a fork Python prints and drops the error, and it would end a worker that just started.
    """
    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    before = {number: handler for number, handler in before.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    came = []
    for number in before:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _follow_parent() -> None:
    """Leave interruptions to the parent, and do not outlive it when it is killed.

    A terminal sends Ctrl-C, and SIGHUP when it is closed, to the workers too. One that it stops
    while it hands over a result leaves half of that in the pipe, for whose rest the parent would
    wait without end.
    """
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's handler, which may raise

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
