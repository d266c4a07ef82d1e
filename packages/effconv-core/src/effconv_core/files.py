"""Files that appear whole or not at all."""

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # as safetensors tells what the system refused


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name to write to; what was written then gets the name asked for.

    It is on the disk before it gets its name, so that neither a kill nor a power cut leaves a part
    of a file. Where writing fails, the file that was there stays and the part is removed.

    Args:
        path: the file.

    Raises:
        OSError: if it cannot be written; it names the file, also where the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".partial")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, SafetensorError) and (number := SYSTEM_ERROR.search(str(error))):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
