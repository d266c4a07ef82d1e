"""How a command of `tools` begins, and ends: with a sentence, whatever ends it."""

import errno
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console

ROOM = {errno.ENOSPC: "free some room", errno.EDQUOT: "free some of the quota"}
RIGHTS = dict.fromkeys(
    (errno.EROFS, errno.EACCES, errno.EPERM), "name a folder that can be written"
)


class StoppedError(KeyboardInterrupt):
    """SIGINT or SIGTERM; what was running may release what it holds."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def check_device(device: str) -> None:
    """Refuse a GPU that is not there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but this torch sees no GPU; pass --device cpu")


def run_and_report(name: str, run: Callable[[list[str], Console], Path]) -> int:
    """Run a command line that leaves a run's folder, and give its exit status.

    Args:
        name: stands before the sentence of a refusal.
        run: takes the arguments and the console, and gives the folder.
    """

    def function() -> None:
        console, started = Console(), time.perf_counter()
        # Torch says so once for every even size: true, and no concern of who runs a command.
        warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
        folder = run(sys.argv[1:], console)
        seconds = time.perf_counter() - started
        console.print(f"{folder / 'report.md'} written after {seconds:.0f} s")

    return run_command(name, function)


def run_command(name: str, function: Callable[[], int | None]) -> int:
    """Run a command line, and give its exit status.

    A refusal is one line and status 2. The first SIGINT or SIGTERM ends what runs in order; the
    second ends the process at once, which loses nothing either, since files appear whole.

    Args:
        name: stands before the sentence.
        function: gives the exit status, None for 0.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    threading.excepthook = _in_thread
    try:
        return function() or 0
    except (ValueError, TypeError, FloatingPointError) as error:
        return _tell(name, str(error), 2)
    except OSError as error:
        return _tell(name, os_sentence(error), 2)
    except StoppedError as stopped:
        kind = signal.Signals(stopped.number).name
        sentence = f"stopped by {kind}; the same command goes on from the last checkpoint"
        return _tell(name, sentence, 128 + stopped.number)


def os_sentence(error: OSError) -> str:
    """Say what the system refused, and what can be done."""
    remedy = (ROOM | RIGHTS).get(error.errno)
    if remedy is None:
        return str(error)
    return (
        f"{error.filename or 'a file'} cannot be written: {error.strerror}; {remedy}, and give the "
        "same command again, which goes on from the last checkpoint"
    )


def _in_thread(what: threading.ExceptHookArgs) -> None:
    # TensorBoard's thread hands on what the system refuses it, so it is told once, by a sentence.
    if not isinstance(what.exc_value, OSError):
        threading.__excepthook__(what)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise StoppedError(number)


def _tell(name: str, sentence: str, status: int) -> int:
    # Neither wrapped nor marked up, because names of files stand in it.
    errors = Console(stderr=True, highlight=False)
    errors.print(f"{name}: {sentence}", style="red", markup=False, soft_wrap=True)
    sys.stderr.flush()
    return status
