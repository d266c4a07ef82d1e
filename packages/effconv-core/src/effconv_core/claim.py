"""Who works on a run's folder: one process at a time, on any machines that share a disk.

A claim is a file `.claims/000001.json` in the folder, whose creation gives it to one process alone.
It is never removed: who takes over from a dead holder creates the next number, so that of two that
want to, one does; and a holder that was only slow finds the next number there, and stops.

Whether a holder is dead is known exactly where it runs under the same kernel: its process is looked
up by id and start time, so that another process of the same id is not taken for it. On another
machine a holder counts as dead when its file's time has stood still for `STALE` seconds of the
looker's own monotonic clock; clocks of two machines are never compared. A holder that was silent
for so long and comes back notices within a beat, on a network disk within a minute or so; what it
writes until then is the same that its follower writes, since a run depends on its settings alone.
"""

import contextlib
import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from effconv_core.io.atomic import create_file, renew_time, write_text
from effconv_core.run_owner import CLAIMS

HEARTBEAT = 15.0  # seconds
STALE = 300.0  # seconds; twenty beats, and longer than a network disk remembers a file's time


class ClaimedError(FileExistsError):
    """Another process holds the folder."""


class Claim:
    """A folder held by this process, until the `with` block ends.

    Attributes:
        number: of the claim, from 1; one less is how often the folder was held before.
        lost: whether another process has taken over, because this one was silent for too long.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._over = path, threading.Event()
        self.number = int(path.stem)
        self.lost = False

    def __enter__(self) -> "Claim":
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            write_text(self._path.with_suffix(".released"), "")

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT):
            if _path(self._path.parent, self.number + 1).exists():
                self.lost = True
                # Ends the run as Ctrl-C does: what the other process writes is not to be mixed.
                # By a real signal, which also wakes a thread that waits.
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                return
            with contextlib.suppress(OSError):
                renew_time(self._path)


def claim(folder: Path, silent: Callable[[Path], bool] = lambda _: False) -> Claim:
    """Take a run's folder for this process; it is made where it is missing.

    Args:
        folder: the run's folder.
        silent: tells of a claim from another machine whether its holder counts as dead, see
            `watcher`; by default it never does.

    Raises:
        ClaimedError: if another process holds it, or takes it in the same moment.
    """
    claims = folder / CLAIMS
    claims.mkdir(parents=True, exist_ok=True)
    number = held_before(folder)
    if number:
        latest = _path(claims, number)
        if not (_is_released(latest) or _is_gone(latest) or silent(latest)):
            raise ClaimedError(f"{folder} is held by {_in_words(latest)}")
    # Made before the file is: who is killed between the two keeps everybody out until it is stale.
    path, text = _path(claims, number + 1), json.dumps(_this_process()).encode()
    try:
        create_file(path, text)
    except FileExistsError:
        raise ClaimedError(f"{folder} was taken by another process in this moment") from None
    return Claim(path)


def held_before(folder: Path) -> int:
    """Give how often a folder was claimed so far."""
    names = [path.stem for path in (folder / CLAIMS).glob("*.json")]
    return max(map(int, names), default=0)


def is_held(folder: Path) -> bool:
    """Tell whether a folder's last holder may still be at work."""
    number = held_before(folder)
    latest = _path(folder / CLAIMS, number)
    return bool(number) and not (_is_released(latest) or _is_gone(latest))


def watcher(stale: float = STALE) -> Callable[[Path], bool]:
    """Give what tells whether a claim was silent for so many seconds since it was first asked."""
    seen: dict[Path, tuple[int, float]] = {}

    def silent(path: Path) -> bool:
        # Opened, so that a network disk is asked anew.
        with path.open("rb") as file:
            beat = os.fstat(file.fileno()).st_mtime_ns
        now = time.monotonic()
        if path not in seen or seen[path][0] != beat:
            seen[path] = beat, now
        return now - seen[path][1] >= stale

    return silent


def _path(claims: Path, number: int) -> Path:
    return claims / f"{number:06d}.json"


def _is_released(path: Path) -> bool:
    return path.with_suffix(".released").exists()


def _is_gone(path: Path) -> bool:
    """Tell whether the holder is known to be dead, which only its own kernel can say."""
    holder = _holder(path)
    here = _this_process()
    if not holder or not here["kernel"] or holder["kernel"] != here["kernel"]:
        return False
    return _start_of(holder["pid"]) != holder["started"]


def _in_words(path: Path) -> str:
    holder = _holder(path)
    if not holder:
        return f"a process that has not told its name in {path}; wait for it, or delete that file"
    return (
        f"process {holder['pid']} on {holder['host']}; wait for it or stop it, and if that machine "
        f"is gone, delete {path}"
    )


def _holder(path: Path) -> dict[str, Any]:
    """Give what a claim says of its holder; nothing if it was killed before it could write."""
    try:
        return json.loads(path.read_text())
    except (ValueError, FileNotFoundError):
        return {}


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "kernel": _kernel(),
        "started": _start_of(os.getpid()),
    }


def _kernel() -> str:
    """Name this boot of this machine and this table of processes; empty where there is no name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start_of(pid: int) -> str | None:
    """Give when a process began, in ticks since the boot; None if it is dead or there is none."""
    try:
        # Behind the name, which may hold anything, also brackets and spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
