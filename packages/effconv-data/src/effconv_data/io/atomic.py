"""Write files whole or not at all, under names that nobody can have prepared.

A file is written under a random name that must be new (`O_EXCL`, which follows no link), brought
to the disk, and renamed. Renaming replaces a link at the target, and never what it points at.
"""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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
        os.close(os.open(temporary, flags, 0o666))
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(temporary), temporary):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to disk, if the system supports it."""
    with contextlib.suppress(OSError):  # Windows opens no folders, some network disks sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: as `written_whole` does.
    """
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def opened_for_appending(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file whose name others may know, to read it and to write behind what it holds.

    A file that is gone on with needs a name that stays the same, under which somebody may have put
    a link or a pipe. The file is made where it is missing.

    Raises:
        OSError: if it cannot be opened, also because it is a link.
        ValueError: if it is not a regular file, or has a second name (a hard link).
    """
    # Without O_NONBLOCK the opening of a pipe waits for a reader.
    flags = os.O_CREAT | os.O_APPEND | os.O_RDWR | NO_LINKS | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError:
        if Path(path).is_symlink():
            raise ValueError(
                f"{path} is a link, and what it leads to is not written to; remove it"
            ) from None
        raise
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(handle)
        raise ValueError(
            f"{path} is not a regular file of one name, so it is not written to; remove it"
        )
    with os.fdopen(handle, "ab+") as file:
        yield file


def append_text(path: str | os.PathLike[str], text: str) -> None:
    """Append to a text file (UTF-8), which is made where it is missing, and bring it to the disk.

    Raises:
        OSError: as `opened_for_appending` does.
        ValueError: as `opened_for_appending` does.
    """
    with opened_for_appending(path) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed processes left in a folder of this package."""
    for path in folder.iterdir():
        if PARTIAL.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)
