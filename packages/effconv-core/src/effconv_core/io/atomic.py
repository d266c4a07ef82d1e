"""Write files whole or not at all, under names that nobody can have prepared.

A file is written under a random name that must be new (`O_EXCL`, which follows no link), brought
to the disk, and renamed. Renaming replaces a link at the target, and never what it points at.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # as safetensors reports what the system refused
PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.partial")
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file to write to; afterwards it gets the name asked for.

    Its content is on the disk before it gets its name, so neither a kill nor a power cut leaves a
    part of a file. Where writing fails, the file that was there stays and the part is removed. Its
    mode is that of any new file (0666 less the umask), whatever wrote it.

    Args:
        path: the file; a link there is replaced, not followed.

    Raises:
        OSError: if it cannot be written; it names the file, also where the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | NO_LINKS
        handle = os.open(temporary, flags, 0o666)
        mode = os.fstat(handle).st_mode & 0o777
        os.close(handle)
        yield temporary
        temporary.chmod(mode)  # safetensors writes a file of its own, which nobody else may read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, SafetensorError) and (number := SYSTEM_ERROR.search(str(error))):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
        if isinstance(error, OSError) and error.filename in (None, str(temporary), temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders, some network disks sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file (UTF-8) whole or not at all.

    Raises:
        OSError: as `written_whole` does.
    """
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)


def append_text(path: str | os.PathLike[str], text: str) -> None:
    """Append to a text file (UTF-8), which is made where it is missing.

    Raises:
        OSError: if it cannot be written, or is a link, which could lead to any file.
    """
    handle = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | NO_LINKS, 0o666)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        file.write(text)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder of ours."""
    for path in folder.iterdir():
        if PARTIAL.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)
