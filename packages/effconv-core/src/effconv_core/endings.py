"""How a command begins, and ends: with a sentence and a status, whatever ends it."""

import errno
import re
import signal
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Callable
from types import FrameType

import torch

from effconv_core.io.console import PlainConsole
from effconv_core.io.terminal import make_outputs_total

ROOM = {errno.ENOSPC: "free some room", errno.EDQUOT: "free some of the quota"}
RIGHTS = dict.fromkeys(
    (errno.EROFS, errno.EACCES, errno.EPERM), "name a folder that can be written"
)

OURS = ("effconv_core", "effconv_data", "effconv_kernels", "effconv_models", "tools", "__main__")

LONGEST = 3000  # characters of a sentence that are shown

# Exit statuses, beside 0; 1 is an error that nobody has foreseen, with a traceback, and 128 and a
# signal's number is that signal.
REFUSED = 2
DIVERGED = 3


class StoppedError(KeyboardInterrupt):
    """SIGINT or SIGTERM; what was running may release what it holds."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def check_device(device: str) -> None:
    """Refuse a device that is not there."""
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


def run_command(name: str, function: Callable[[], int | None]) -> int:
    """Run a command line, and give its exit status.

    A refusal is one line and status 2, and a loss that is not finite one line and status 3. The
    first SIGINT or SIGTERM ends what runs in order; the second ends the process at once, which
    loses nothing either, since files appear whole.

    Args:
        name: stands before the sentence.
        function: gives the exit status, None for 0.
    """
    make_outputs_total()
    # Torch says so once for every even size: true, and no concern of who runs a command.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    threading.excepthook = _in_thread
    try:
        return function() or 0
    except FloatingPointError as error:
        return tell(name, str(error), DIVERGED)
    except (ValueError, TypeError) as error:
        return tell(name, f"{error}{_raised_by(error)}", REFUSED)
    except OSError as error:
        return tell(name, os_sentence(error), REFUSED)
    except StoppedError as stopped:
        kind = signal.Signals(stopped.number).name
        sentence = f"stopped by {kind}; the same command goes on from the last checkpoint"
        return tell(name, sentence, 128 + stopped.number)
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is _stop:
                signal.signal(number, handler or signal.SIG_DFL)


def os_sentence(error: OSError) -> str:
    """Say what the system refused, and what can be done."""
    remedy = (ROOM | RIGHTS).get(error.errno)
    if remedy is None:
        return str(error)
    return (
        f"{error.filename or 'a file'} cannot be written: {error.strerror}; {remedy}, and give the "
        "same command again, which goes on from the last checkpoint"
    )


def _raised_by(error: Exception) -> str:
    """Name the line of a user's own code, such as a model's, that an error came through."""
    places = sysconfig.get_paths()
    installed = places["purelib"], places["platlib"], places["stdlib"]
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
        if name.split(".")[0] in OURS or file.startswith((*installed, "<")):
            continue
        return f" (in {file}, line {line})"
    return ""


def _in_thread(what: threading.ExceptHookArgs) -> None:
    # TensorBoard's thread hands on what the system refuses it, so it is told once, by a sentence.
    if not isinstance(what.exc_value, OSError):
        threading.__excepthook__(what)


def _stop(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise StoppedError(number)


def tell(name: str, sentence: str, status: int) -> int:
    """Write a sentence to the standard error, on one line, and return the exit status."""
    # What libraries say may have several lines; what a file holds may be of any length.
    words = re.sub(r"\s*[\r\n\t]\s*", " ", sentence)
    if len(words) > LONGEST:
        words = f"{words[:LONGEST]}... (cut off, of {len(words):,} characters)"
    PlainConsole(stderr=True).print(f"{name}: {words}", style="red", soft_wrap=True)
    return status
