"""Outlive a terminal or a pipe that is closed while a command writes to it."""

import errno
import io
import os
import sys
from typing import Any

from effconv_core.io.terminal import silence


class _Terminal(io.FileIO):
    """A terminal; what is written to it after it was closed is lost."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return len(data)


def outlive_terminal() -> None:
    """Discard standard output and error in silence where they are a terminal that was closed.

    Otherwise the next line of progress would end a process that the closing itself has not ended,
    such as one in the background.
    """
    if os.name != "posix":
        return
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)  # under PYTHONUNBUFFERED there is none between
        if type(raw) is io.FileIO and stream.isatty():
            stream.flush()
            terminal = io.BufferedWriter(_Terminal(stream.fileno(), "w", closefd=False))
            options = {"encoding": stream.encoding, "errors": stream.errors}
            setattr(sys, name, io.TextIOWrapper(terminal, **options, line_buffering=True))


def drop_lost_outputs() -> None:
    """Write out what is held back for standard output and error, or drop it where they are gone.

    Otherwise Python tries again when it ends, and changes the exit status when that fails.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            silence(stream)
