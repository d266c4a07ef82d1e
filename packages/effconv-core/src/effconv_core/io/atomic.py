"""Write files atomically, through temporary names that nobody can predict.

A file is written under a random name that must be new (`O_EXCL`, which follows no link), synced
to disk, and renamed. Renaming replaces a link at the target, never the file that it points to.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors reports system errors
PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.partial")
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary file to write to; afterwards it is renamed to `path`.

    Its content is synced before the rename, so neither a kill nor a power cut leaves a partial
    file. If writing fails, an existing file stays and the partial one is removed. Its mode is that
    of any new file (0666 without the umask), whatever wrote it.

    Args:
        path: the file; a link there is replaced, not followed.

    Raises:
        OSError: if it cannot be written; the error names the file, also if the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | NO_LINKS
        handle = os.open(temporary, flags, 0o666)
        mode = os.fstat(handle).st_mode & 0o777
        os.close(handle)
        yield temporary
        temporary.chmod(mode)  # safetensors writes with a private mode
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


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise where a file could not be written later; nothing is left behind.

    Args:
        path: a file, which may be there or not.

    Raises:
        OSError: if its folder is missing, is a file or cannot be written to, or it is a folder or a
            link that leads nowhere.
    """
    path = Path(path)
    if path.is_symlink() and not path.exists():
        why = "it is a link that leads nowhere; delete it, or name another file"
        raise OSError(errno.ENOENT, why, str(path))
    if path.is_dir():
        why = "it is a folder; name a file"
        raise OSError(errno.EISDIR, why, str(path))
    if path.parent.exists() and not path.parent.is_dir():
        why = "what it is to lie in is a file; name another"
        raise OSError(errno.ENOTDIR, why, str(path))
    if not path.parent.exists():
        why = "its folder is missing; make it, or name another"
        raise OSError(errno.ENOENT, why, str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | NO_LINKS, 0o666))
        temporary.unlink()
    except OSError as error:
        why = f"{error.strerror}; name a file where you may write"
        raise OSError(error.errno, why, str(path)) from None


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to disk, if the system supports it."""
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


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: as `written_whole` does.
    """
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(content)


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    previous: Path | None = None,
) -> None:
    """Write a safetensors file whole or not at all.

    Args:
        path: the file; a link there is replaced, not followed.
        tensors: contiguous, by name.
        metadata: of the file; none when None.
        previous: gets what the file held before, so that there is a newest one at any moment; None
            keeps nothing.

    Raises:
        OSError: as `written_whole` does.
        SafetensorError: if safetensors cannot hold the tensors.
    """
    path = Path(path)
    with written_whole(path) as temporary:
        save_file(dict(tensors), temporary, metadata=None if metadata is None else dict(metadata))
        if previous is not None:
            _keep(path, previous)


def _keep(path: Path, previous: Path) -> None:
    """Link a file to a second name, which replaces what had that name before."""
    if path.is_symlink() or not path.exists():
        previous.unlink(missing_ok=True)  # left by another run, whose newest was deleted
        return
    second = previous.with_name(f".{previous.name}.{secrets.token_hex(8)}.partial")
    try:
        try:
            second.hardlink_to(path)
        except OSError:  # some file systems have no such links
            with path.open("rb") as source, second.open("xb") as copy:
                shutil.copyfileobj(source, copy)
        second.replace(previous)
    finally:
        second.unlink(missing_ok=True)  # still there if both were links to one file


def open_to_append(path: str | os.PathLike[str]) -> TextIO:
    """Return a text file (UTF-8) open at its end; it is made where it is missing.

    Raises:
        OSError: if it cannot be written, or is a link, which could lead to any file.
    """
    handle = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | NO_LINKS, 0o666)
    return os.fdopen(handle, "a", encoding="utf-8")


def append_text(path: str | os.PathLike[str], text: str) -> None:
    """Append to a text file (UTF-8), which is created if missing.

    Raises:
        OSError: as `open_to_append` does.
    """
    with open_to_append(path) as file:
        file.write(text)


def rename_file(path: Path, target: Path) -> None:
    """Rename a file; what had that name is replaced, a link itself and not its end.

    Raises:
        OSError: if it cannot be renamed.
    """
    path.replace(target)


def remove_file(path: Path) -> None:
    """Delete a file, or a link and not what it leads to; one that is missing is not an error.

    Raises:
        OSError: if it cannot be deleted, or is a folder.
    """
    path.unlink(missing_ok=True)


def remove_empty_folder(path: Path) -> None:
    """Delete a folder if nothing is in it; one that holds anything, or is a link, stays."""
    with contextlib.suppress(OSError):
        path.rmdir()
