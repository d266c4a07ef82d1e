"""Run a command-line entry point; turn errors and signals into one message and an exit status."""

import contextlib
import errno
import os
import re
import signal
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

from effconv_core.distributed.failures import RankLostError, RanksDifferError
from effconv_core.io.atomic import check_place
from effconv_core.io.console import PlainConsole
from effconv_core.io.lost_terminal import drop_lost_outputs, outlive_terminal
from effconv_core.io.terminal import make_outputs_total

ROOM = {errno.ENOSPC: "free some room", errno.EDQUOT: "free some of the quota"}
RIGHTS = dict.fromkeys(
    (errno.EROFS, errno.EACCES, errno.EPERM), "name a folder that can be written"
)

# Of files that are read; those that are written have been checked by `check_output`.
ANOTHER = {
    errno.ENOENT: "pass a path that exists",
    errno.ENOTDIR: "pass a path that leads through folders",
    errno.EISDIR: "pass a file",
    errno.ENAMETOOLONG: "pass a shorter name",
    errno.ELOOP: "pass a path that is not a circle of links",
}

OURS = ("effconv_core", "effconv_data", "effconv_kernels", "effconv_models", "tools", "__main__")

LONGEST = 3000  # characters of a sentence that are shown

# Exit statuses, besides 0; 1 is an unexpected error, with a traceback, and 128 plus a signal's
# number is that signal.
REFUSED = 2
DIVERGED = 3


# The terminal was closed, where there are terminals; SIGQUIT stays what it is, an end with a core.
CLOSED = getattr(signal, "SIGHUP", None)
ENDS = [signal.SIGINT, signal.SIGTERM, *([] if CLOSED is None else [CLOSED])]


class StoppedError(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP; what was running may release what it holds."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def check_device(device: str) -> None:
    """Check that a device exists.

    Raises:
        ValueError: if PyTorch does not know it, or sees no such GPU."""
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device is {device!r}, which PyTorch does not know; pass cpu, cuda or the like"
        ) from error
    if wanted.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device is {device!r}, but this torch sees no GPU; pass --device cpu")
        count = torch.cuda.device_count()
        if wanted.index is not None and wanted.index >= count:
            raise ValueError(
                f"device is {device!r}, but the last GPU is cuda:{count - 1}; pass a lower number"
            )


def check_output(path: Path, overwrite: bool) -> None:
    """Check before the work that a file can be written after it.

    Args:
        path: the file.
        overwrite: whether it may replace another file.

    Raises:
        ValueError: if there is such a file, and it may not be replaced.
        OSError: if its folder is missing or cannot be written to, or it is a folder.
    """
    if os.path.lexists(path) and not overwrite:
        raise ValueError(f"{path} exists; pass --overwrite to replace it, or another name")
    check_place(path)


def run_command(name: str, function: Callable[[], int | None]) -> int:
    """Run a command line, and give its exit status.

    A refusal is one line and status 2, and a loss that is not finite one line and status 3. The
    first SIGINT, SIGTERM or SIGHUP ends what runs in order; a second SIGINT or SIGTERM ends the
    process at once, which loses nothing either, since files appear whole. SIGHUP stays ignored
    where the process began so, as under nohup. What runs in the background goes on in silence when
    its terminal is closed.

    Args:
        name: stands before the sentence.
        function: gives the exit status, None for 0.
    """
    make_outputs_total()
    # Torch warns once for each even size, which does not matter to the user of a command.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    immune = CLOSED is not None and signal.getsignal(CLOSED) is signal.SIG_IGN
    numbers = [number for number in ENDS if not (number == CLOSED and immune)]
    before = {number: signal.signal(number, _stop) for number in numbers}
    threading.excepthook = _in_thread
    outlive_terminal()
    try:
        return function() or 0
    except FloatingPointError as error:
        return tell(name, str(error), DIVERGED)
    except (ValueError, TypeError) as error:
        return tell(name, f"{error}{_raised_by(error)}", REFUSED)
    except (RankLostError, RanksDifferError) as error:
        return tell(name, str(error), REFUSED)
    except (OSError, SystemExit) as error:
        # Where the outputs are gone, what is shown at a stop is refused, too, or ends the process.
        if stopped := _stop_before(error):
            return _told(name, stopped)
        if isinstance(error, SystemExit):
            raise
        return tell(name, os_sentence(error), REFUSED)
    except StoppedError as stopped:
        return _told(name, stopped)
    finally:
        drop_lost_outputs()
        for number, handler in before.items():
            if signal.getsignal(number) is _stop:
                signal.signal(number, handler or signal.SIG_DFL)


def _told(name: str, stopped: StoppedError) -> int:
    kind = signal.Signals(stopped.number).name
    sentence = f"stopped by {kind}; the same command goes on from the last checkpoint"
    return tell(name, sentence, 128 + stopped.number)


def _stop_before(error: BaseException) -> StoppedError | None:
    """Return the stop in whose course an error was raised, None where there was none."""
    before = error.__context__
    while before is not None and not isinstance(before, StoppedError):
        before = before.__context__
    return before


def os_sentence(error: OSError) -> str:
    """Return a message with what the system refused and a remedy."""
    if error.errno == errno.EPIPE:
        return "what it writes to was closed; the same command goes on from the last checkpoint"
    remedy = (ROOM | RIGHTS).get(error.errno)
    if error.filename is not None and error.strerror is not None:
        if ";" in error.strerror:  # ours, with a remedy
            return f"{error.filename}: {error.strerror}"
        if remedy is None and error.errno in ANOTHER:
            return f"{error.filename}: {error.strerror}; {ANOTHER[error.errno]}"
    if remedy is None:
        return str(error)
    return (
        f"{error.filename or 'a file'} cannot be written: {error.strerror}; {remedy}, and give the "
        "same command again, which goes on from the last checkpoint"
    )


def _raised_by(error: Exception) -> str:
    """Return the line of the user's own code, such as a model's, that an error came through."""
    places = sysconfig.get_paths()
    installed = places["purelib"], places["platlib"], places["stdlib"]
    frames = list(traceback.walk_tb(error.__traceback__))
    if error.__cause__ is not None:
        frames += traceback.walk_tb(error.__cause__.__traceback__)
    for frame, line in reversed(frames):
        name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        if name.split(".")[0] in OURS or file.startswith((*installed, "<")):
            continue
        return f" (in {file}, line {line})"
    return ""


def _in_thread(what: threading.ExceptHookArgs) -> None:
    # TensorBoard's thread passes on its OSError, so it is reported once, as one message.
    if not isinstance(what.exc_value, OSError):
        threading.__excepthook__(what)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in ENDS:
        # When a terminal closes, its shell may send a second SIGHUP, and torchrun another.
        signal.signal(each, signal.SIG_IGN if each == CLOSED else signal.SIG_DFL)
    raise StoppedError(number)


def tell(name: str, sentence: str, status: int) -> int:
    """Write a sentence to the standard error, on one line, and return the exit status."""
    # What libraries say may have several lines; what a file holds may be of any length.
    words = re.sub(r"\s*[\r\n\t]\s*", " ", sentence)
    if len(words) > LONGEST:
        words = f"{words[:LONGEST]}... (cut off, of {len(words):,} characters)"
    with contextlib.suppress(OSError):  # where it is gone, the status is all that is left to say
        PlainConsole(stderr=True).print(f"{name}: {words}", style="red", soft_wrap=True)
    return status
