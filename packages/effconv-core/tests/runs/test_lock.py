"""One process at a time on a run's folder, whatever lies in it and however its holder ends."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import filelock
import pytest
from effconv_core.runs.lock import ClaimedError, claim, is_held, was_killed
from effconv_core.runs.owner import LOCK

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="forks, kills and links of other systems"),
]
FORK = multiprocessing.get_context("fork")


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def hold(folder, then=lambda: time.sleep(120)):
    """Return a process that holds a folder."""

    def run():
        with claim(folder):
            then()

    process = FORK.Process(target=run)
    process.start()
    wait_until(lambda: (folder / LOCK).exists() and (folder / LOCK).read_text())
    return process


def refused(folder):
    with pytest.raises(ClaimedError) as error, claim(folder, patience=0.0):
        pass
    return str(error.value)


def test_a_held_folder_is_refused_with_the_holder_and_left_as_it_was(tmp_path):
    folder = tmp_path / "run"
    with claim(folder):
        assert f"process {os.getpid()} on" in refused(folder)
        assert is_held(folder)
    assert not is_held(folder)
    assert list(folder.iterdir()) == []
    process = hold(folder)
    assert f"process {process.pid} on" in refused(folder)
    assert is_held(folder)
    process.kill()
    process.join()


def test_an_error_releases_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), claim(tmp_path):
        1 / 0  # noqa: B018
    with claim(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_is_followed_at_once(tmp_path):
    process = hold(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL))
    # It stays a zombie: a dead child that nobody has waited for is dead all the same.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert was_killed(tmp_path)
    with claim(tmp_path, patience=0.0):
        pass
    assert not was_killed(tmp_path)
    process.join()


def test_who_waits_gets_the_folder_when_its_holder_ends(tmp_path):
    process = hold(tmp_path, lambda: time.sleep(0.5))
    with claim(tmp_path, patience=60.0):
        assert (tmp_path / LOCK).exists()
        assert str(os.getpid()) in refused(tmp_path)
    process.join()
    assert process.exitcode == 0


def test_a_stopped_holder_is_still_the_holder(tmp_path):
    process = hold(tmp_path, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    wait_until(lambda: "T (stopped)" in Path(f"/proc/{process.pid}/status").read_text())
    assert f"process {process.pid}" in refused(tmp_path)
    process.kill()
    process.join()
    with claim(tmp_path):
        pass


def test_children_of_a_killed_holder_keep_nobody_out(tmp_path):
    """Workers of a data loader are forked, and live on for a while."""
    born = tmp_path / "born"

    def then():
        child = FORK.Process(target=lambda: time.sleep(120), daemon=False)
        child.start()
        born.write_text(str(child.pid))
        time.sleep(120)

    folder = tmp_path / "run"
    process = hold(folder, then)
    wait_until(lambda: born.exists() and born.read_text())
    process.kill()
    process.join()
    try:
        os.kill(int(born.read_text()), 0)  # it lives
        with claim(folder, patience=0.0):
            pass
    finally:
        os.kill(int(born.read_text()), signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_releases_nothing(tmp_path):
    block = claim(tmp_path)
    block.__enter__()
    child = os.fork()
    if not child:
        with suppress(BaseException):
            block.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    assert str(os.getpid()) in refused(tmp_path)
    block.__exit__(None, None, None)
    assert not is_held(tmp_path)


@pytest.mark.parametrize(
    "content", [b"[1]", b"", b"\xff\x1b[2J", b"{" * 100_000, b"process 1 on x"]
)
def test_whatever_a_lock_holds_keeps_nobody_out(content, tmp_path):
    (tmp_path / LOCK).write_bytes(content)
    assert not is_held(tmp_path)
    (tmp_path / LOCK).write_bytes(content)
    with claim(tmp_path, patience=0.0):
        (tmp_path / LOCK).write_bytes(content)
        said = refused(tmp_path)
        assert said.isprintable()
        assert len(said) < 300
    assert list(tmp_path.iterdir()) == []


def test_copies_and_what_earlier_releases_left_keep_nobody_out(tmp_path):
    claims = tmp_path / ".claims"
    claims.mkdir()
    for name in ("000001.json", "000001 (copy).json", "x.json", "000002.json"):
        (claims / name).write_text("[1]")
    (tmp_path / LOCK.replace(".lock", " (conflicted copy).lock")).write_text("[1]")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with claim(tmp_path, patience=0.0):
        pass
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "folder", "pipe"])
def test_what_is_planted_at_the_name_of_the_lock_is_left_alone(kind, tmp_path):
    target, folder = tmp_path / "thesis.tex", tmp_path / "run"
    folder.mkdir()
    target.write_text("years of work")
    path = folder / LOCK
    if kind == "symlink":
        path.symlink_to(target)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "new")
    elif kind == "hard link":
        path.hardlink_to(target)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(FileExistsError, match=LOCK), claim(folder):
        pass
    assert target.read_text() == "years of work"
    assert os.path.lexists(path)
    assert not (tmp_path / "new").exists()


def race(folder, barrier, won):
    barrier.wait()
    with suppress(ClaimedError), claim(folder, patience=0.0):
        with won.get_lock():
            won.value += 1
        time.sleep(120)  # it must live, or the others may follow


@pytest.mark.parametrize("abandoned", [False, True])
def test_of_many_that_want_a_folder_at_once_one_gets_it(abandoned, tmp_path):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        if abandoned:
            process = hold(folder)
            process.kill()
            process.join()
        barrier, won = FORK.Barrier(8), FORK.Value("i", 0)
        processes = [FORK.Process(target=race, args=(folder, barrier, won)) for _ in range(8)]
        for process in processes:
            process.start()
        wait_until(lambda: sum(p.is_alive() for p in processes) <= 1 and won.value)  # noqa: B023
        assert won.value == 1
        for process in processes:
            process.kill()
            process.join()


def count(folder, barrier):
    barrier.wait()
    for _ in range(25):
        with claim(folder, patience=60.0):
            inside = folder / "inside"
            inside.touch(exist_ok=False)  # an error if another is in the block
            number = int((folder / "number").read_text())
            (folder / "number").write_text(str(number + 1))
            inside.unlink()


def test_files_that_come_and_go_let_no_two_in(tmp_path):
    """Each holder deletes its lock, so that who waits for it must make another."""
    (tmp_path / "number").write_text("0")
    barrier = FORK.Barrier(4)
    processes = [FORK.Process(target=count, args=(tmp_path, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "number").read_text() == "100"


def test_a_disk_without_room_for_a_name_locks_all_the_same(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with claim(tmp_path):
            assert "another process" in refused(tmp_path)
    assert not is_held(tmp_path)


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch):
    def none(*_, **__):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(filelock.FileLock, "acquire", none)
    with pytest.raises(OSError, match="another disk") as error, claim(tmp_path):
        pass
    assert not isinstance(error.value, ClaimedError)


def test_a_process_that_ends_at_once_leaves_no_lock_behind(tmp_path):
    """`sys.exit` and Ctrl-C run the end of the block."""
    script = f"""
import sys
from pathlib import Path
from effconv_core.runs.lock import claim
with claim(Path({str(tmp_path)!r})):
    sys.exit(3)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 3
    assert list(tmp_path.iterdir()) == []
