"""Terminal output of untrusted text: control characters are escaped, never sent."""

import contextlib
import os
import sys
from typing import TextIO


def printable(text: object) -> str:
    r"""Return text with control and other unprintable characters escaped.

    Otherwise an escape sequence in the name of a layer would reach the terminal, which it can
    rename, clear or fill with other text.

    Args:
        text: any value; it is converted by `str`.

    Returns:
        The text on one line, such as `conv1\x1b[2J` for a name with an escape character.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def make_outputs_total() -> None:
    """Make standard output and error take any character, also where nobody listens.

    What their encoding cannot write becomes an escape: an arrow in a table would otherwise end a
    run where the output is ASCII, or a redirect on Windows. One that is closed leads nowhere.
    """
    for number in (1, 2):  # or the next file to be opened would be the standard output
        try:
            os.fstat(number)
        except OSError:
            _lead_nowhere(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
            continue
        reconfigure = getattr(stream, "reconfigure", None)  # a replacement in a test may have none
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def write_output(text: str) -> None:
    """Write to the standard output; where its reader has gone, write nothing more to it.

    Raises:
        OSError: if it cannot be written, such as a file on a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        raise OSError(error.errno, error.strerror, "the standard output") from None


def silence(stream: TextIO) -> None:
    """Discard what is written to a stream from now on."""
    with contextlib.suppress(OSError, ValueError):  # it may be no file of the system
        _lead_nowhere(stream.fileno())


def _lead_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
