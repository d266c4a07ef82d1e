"""Lock a run's folder: one process at a time works in it, and a lock ends with its process.

The lock is the system's own on a file in the folder (`flock`, `LockFileEx`), so it cannot go stale,
and on a network disk that passes locks on it holds between machines. What the file says serves one
sentence only; no decision rests on it.
"""

import contextlib
import errno
import os
import platform
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from effconv_core.io.atomic import remove_file
from effconv_core.io.read_json import read_limited
from effconv_core.runs.owner import LOCK

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


class ClaimedError(FileExistsError):
    """Another process holds the folder."""


@contextmanager
def claim(folder: Path, patience: float = 1.0) -> Iterator[None]:
    """Lock a run's folder until the `with` block, or this process, ends.

    Args:
        folder: the run's folder, made where it is missing.
        patience: seconds to wait for another process that is about to end.

    Raises:
        ClaimedError: if another process, or another block of this one, holds it.
        FileExistsError: if a link or a folder has the name of the lock, which is then left alone.
        OSError: if the lock cannot be made, such as on a disk that has none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    _check_unlinked(path)
    lock = FileLock(path, timeout=patience, thread_local=False, on_acquired=_sign)
    try:
        lock.acquire()
    except Timeout:
        raise ClaimedError(f"{folder} is held by {_holder(path)}; wait for it or stop it") from None
    except OSError as error:
        if error.errno in NO_LOCKS:
            what = f"{error.strerror}, and runs need locks; name a folder on another disk"
            raise OSError(error.errno, what, str(folder)) from None
        raise
    try:
        yield
    finally:
        if lock.is_locked:  # not in a forked child, which has no part in it
            # Before the release: who waits for it then notices, and makes its own file.
            with contextlib.suppress(OSError):  # Windows deletes no open file, and filelock does it
                remove_file(path)
            lock.release()


def is_held(folder: Path) -> bool:
    """Return whether a process holds a run's folder, in which nothing is changed."""
    path = folder / LOCK
    if not path.is_file() or path.is_symlink():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except (Timeout, PermissionError):  # a file that may not be opened is somebody else's
        return True


def was_killed(folder: Path) -> bool:
    """Return whether a lock lies in a folder: its holder is at work, or was killed."""
    return os.path.lexists(folder / LOCK)


def _check_unlinked(path: Path) -> None:
    """Raise for a name that leads to a file which may be somebody's."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise FileExistsError(
                f"{path} is a link or a folder, and no process locks what is not its own; delete it"
            )


def _sign(handle: int) -> None:
    """Write into the lock who holds it, where that is possible."""
    with contextlib.suppress(OSError):  # such as a full disk
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"process {os.getpid()} on {platform.node()}".encode())


def _holder(path: Path) -> str:
    """Return what a lock says of its holder, whatever else may have been written there."""
    with contextlib.suppress(OSError, ValueError):
        said = read_limited(path, 200).decode()
        if re.fullmatch(r"process \d+ on [\w.-]+", said, re.ASCII):
            return said
    return "another process, here or on a machine that shares the disk"
