"""One process at a time on a run's folder, on one machine and on several."""

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from effconv_core import claim as module
from effconv_core.claim import CLAIMS, Claim, ClaimedError, claim, held_before, is_held, watcher

pytestmark = pytest.mark.faults
FORK = multiprocessing.get_context("fork")


def latest(folder: Path) -> Path:
    return max((folder / CLAIMS).glob("*.json"))


def rewrite(folder: Path, **changes) -> None:
    path = latest(folder)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_held_folder_is_refused_with_the_holder_and_released_at_the_end(tmp_path):
    with claim(tmp_path / "run") as held:
        assert is_held(tmp_path / "run")
        sentence = f"run is held by process {os.getpid()} on .*; wait for it or stop it, and if"
        with pytest.raises(ClaimedError, match=sentence):
            claim(tmp_path / "run")
    assert not is_held(tmp_path / "run")
    assert (held.number, held_before(tmp_path / "run")) == (1, 1)
    with claim(tmp_path / "run") as second:
        assert second.number == 2


def test_an_error_releases_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), claim(tmp_path):
        1 / 0  # noqa: B018
    claim(tmp_path)


def test_a_killed_holder_is_followed_at_once(tmp_path):
    def hold():
        claim(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=hold)
    process.start()
    # It stays a zombie: a dead child that nobody has waited for is dead all the same.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert claim(tmp_path).number == 2
    process.join()


def test_another_process_of_the_same_id_is_not_taken_for_the_holder(tmp_path):
    claim(tmp_path)
    rewrite(tmp_path, started="1")
    assert claim(tmp_path).number == 2


def test_a_stopped_holder_is_still_the_holder(tmp_path):
    def hold():
        claim(tmp_path)
        os.kill(os.getpid(), signal.SIGSTOP)

    process = FORK.Process(target=hold)
    process.start()
    while (
        not held_before(tmp_path)
        or "T (stopped)" not in Path(f"/proc/{process.pid}/status").read_text()
    ):
        time.sleep(0.01)
    with pytest.raises(ClaimedError, match=f"process {process.pid}"):
        claim(tmp_path, lambda _: False)
    process.kill()
    process.join()
    claim(tmp_path)


@pytest.mark.parametrize("kernel", ["another machine", ""])
def test_a_holder_elsewhere_counts_as_dead_only_after_silence(kernel, tmp_path, monkeypatch):
    claim(tmp_path)
    # Its process number means nothing here, and neither does its clock: it is an hour ahead.
    rewrite(tmp_path, pid=999_999_999, host="far", kernel=kernel)
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    silent, path = watcher(300), latest(tmp_path)
    for beat in range(5):
        os.utime(path, (4e9 - beat, 4e9 - beat))  # and its clock goes backwards
        with pytest.raises(ClaimedError, match="on far"):
            claim(tmp_path, silent)
        now += 299
        with pytest.raises(ClaimedError):
            claim(tmp_path, silent)
    now += 2
    assert claim(tmp_path, silent).number == 2
    # Who never looked twice, such as a single command, does not take over.
    rewrite(tmp_path, kernel=kernel)
    with pytest.raises(ClaimedError):
        claim(tmp_path)


def test_a_claim_whose_creator_could_not_write_falls_to_silence(tmp_path):
    (tmp_path / CLAIMS).mkdir()
    (tmp_path / CLAIMS / "000001.json").touch()
    with pytest.raises(ClaimedError, match="has not told its name.*or delete that file"):
        claim(tmp_path)
    silent = watcher(0.0)
    assert claim(tmp_path, silent).number == 2


def test_a_claim_that_finds_no_room_keeps_nobody_out(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            claim(tmp_path)
    assert claim(tmp_path).number == 1


def race(folder, barrier, won):
    barrier.wait()
    try:
        claim(folder)
    except ClaimedError:
        return
    with won.get_lock():
        won.value += 1
    time.sleep(120)  # it must live, or the others may follow


@pytest.mark.parametrize("abandoned", [False, True])
def test_of_many_that_want_a_folder_at_once_one_gets_it(abandoned, tmp_path):
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        if abandoned:
            claim(folder)
            rewrite(folder, started="1")
        barrier, won = FORK.Barrier(8), FORK.Value("i", 0)
        processes = [FORK.Process(target=race, args=(folder, barrier, won)) for _ in range(8)]
        for process in processes:
            process.start()
        deadline = time.monotonic() + 60
        while (
            sum(p.is_alive() for p in processes) > 1 or not won.value
        ) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert won.value == 1
        for process in processes:
            process.kill()
            process.join()


def test_a_holder_that_was_too_slow_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    claim(tmp_path)
    slow = Claim(latest(tmp_path))

    def beat_and_be_followed():
        with slow:
            before = latest(tmp_path).stat().st_mtime_ns
            while latest(tmp_path).stat().st_mtime_ns == before:  # it beats
                time.sleep(0.005)
            rewrite(tmp_path, kernel="another machine")
            claim(tmp_path, lambda _: True)
            threading.Event().wait(60)

    with pytest.raises(KeyboardInterrupt):
        beat_and_be_followed()
    assert slow.lost
