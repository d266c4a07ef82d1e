"""Whatever goes wrong: nothing is lost unsaid, and the same command goes on to the same end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from effconv_core.runs.lock import is_held

from tools.faults import page
from tools.faults.drill import Reference, drill, refer
from tools.faults.operations import OPERATIONS, Operation, start
from tools.support.rows import read_rows

ROOT = Path(__file__).parents[3]
RUN = OPERATIONS["search"]
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="signals, mounts and /proc are of Linux"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("drill") / "whole"
    return refer("search", folder, folder)


def finish(folder, *more):
    """Give the command that does the run, or what is left of it; its status and what it says."""
    (command,) = RUN.commands(folder)
    output = folder.parent / f"{folder.name}.txt"
    said = output.stat().st_size if output.exists() else 0
    process, _ = start([*command, *more], output)
    process.join()
    return process.exitcode, output.read_text()[said:]


def interrupted(folder, whole, *, keep=("search", "train")):
    """Lay down what a run leaves that is killed when these phases are done."""
    operation = OPERATIONS["report" if "train" in keep else "training"]
    folder.mkdir(exist_ok=True)
    operation.begin(folder, whole.folder)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of some KiB; a second call changes its size or its options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(options):
        remount = ["remount"] if mounted else []
        command = ["mount", "-t", "tmpfs", "-o", ",".join([*remount, *options]), "tmpfs", place]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode and not mounted:
            pytest.skip(f"nothing can be mounted here: {result.stderr.strip()}")
        assert not result.returncode, result.stderr
        mounted.append(True)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 60, 700, 1200])
def test_a_full_disk(size, small_disk, whole):
    folder = small_disk([f"size={size}k"])
    status, said = finish(folder)
    assert status == 2, said
    assert "No space left on device; free some room" in said
    assert "Traceback" not in said
    small_disk(["size=50m"])
    status, said = finish(folder)
    assert status == 0, said
    assert RUN.outcome(folder) == whole.outcome


@pytest.mark.slow
def test_preparation_on_a_full_disk(small_disk, tmp_path):
    operation = OPERATIONS["preparation"]
    reference = refer("preparation", tmp_path / "whole", tmp_path)
    folder = small_disk(["size=50m"])
    operation.begin(folder, folder)
    # The images of the source take this much, and a few shards.
    used = sum(-(-p.stat().st_size // 4096) * 4 for p in folder.rglob("*.png"))
    small_disk([f"size={used + 150}k"])
    (command,) = operation.commands(folder)
    output = tmp_path / "output.txt"
    process, _ = start(command, output)
    process.join()
    assert process.exitcode == 2
    assert "No space left on device" in output.read_text()
    assert "Traceback" not in output.read_text()
    small_disk(["size=50m"])
    process, _ = start(command, output)
    process.join()
    assert process.exitcode == 0
    assert "shards of an interrupted run were kept" in output.read_text()
    assert operation.outcome(folder) == reference.outcome


@pytest.mark.slow
def test_a_read_only_folder(small_disk, whole):
    folder = small_disk(["size=50m"])
    interrupted(folder, whole)
    small_disk(["ro"])
    status, said = finish(folder)
    assert status == 2
    assert "cannot be written: Read-only file system; name a folder that can be" in said
    assert said.count("\n") == 1
    small_disk(["rw"])
    assert finish(folder)[0] == 0
    assert RUN.outcome(folder) == whole.outcome


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "cut off"])
@pytest.mark.parametrize("phase", ["search", "train"])
def test_a_damaged_checkpoint(phase, damage, whole, tmp_path):
    folder = tmp_path / "drill"
    interrupted(folder, whole, keep=("search",) if phase == "search" else ("search", "train"))
    path = folder / "run" / f"{phase}.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 4
    path.write_bytes(data if damage == "flipped" else data[: len(data) // 2])
    status, said = finish(folder)
    assert status == 0, said
    assert f"{phase}.safetensors is not a readable training state" in said
    assert "going on from the state before it" in said
    assert RUN.outcome(folder) == whole.outcome


@pytest.mark.slow
def test_two_damaged_checkpoints_are_told_and_left_alone(whole, tmp_path):
    folder = tmp_path / "drill"
    interrupted(folder, whole)
    for path in folder.glob("run/search.*"):
        path.write_bytes(path.read_bytes()[:-7])
    before = {path: path.read_bytes() for path in folder.glob("run/search.*")}
    status, said = finish(folder)
    assert status == 2
    assert "is not a readable training state" in said
    assert "delete it to start again" in said
    assert {path: path.read_bytes() for path in folder.glob("run/search.*")} == before


@pytest.mark.slow
def test_two_processes_on_one_run(whole, tmp_path):
    folder = tmp_path / "drill"
    folder.mkdir()
    (command,) = RUN.commands(folder)
    first, _ = start(command, tmp_path / "first.txt")
    while not is_held(folder / "run"):
        assert first.is_alive()
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)  # slow, but alive
    for more in ([], ["--overwrite"]):
        status, said = finish(folder, *more)
        assert status == 2
        assert f"is held by process {first.pid} on" in said
    os.kill(first.pid, signal.SIGCONT)
    first.join()
    assert first.exitcode == 0
    assert RUN.outcome(folder) == whole.outcome
    status, said = finish(folder)
    assert status == 2
    assert "is finished" in said
    assert RUN.outcome(folder) == whole.outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "times", "status"),
    [
        (signal.SIGINT, 1, 130),
        (signal.SIGTERM, 1, 143),
        (signal.SIGHUP, 1, 129),
        (signal.SIGINT, 2, None),
    ],
)
def test_interruptions_by_hand(number, times, status, whole, tmp_path):
    folder = tmp_path / "drill"
    folder.mkdir()
    (command,) = RUN.commands(folder)
    output = tmp_path / "first.txt"
    process, _ = start(command, output)
    while not (folder / "run" / "search.safetensors").exists():
        assert process.is_alive()
        time.sleep(0.005)
    for _ in range(times):
        os.kill(process.pid, number)
    process.join()
    if times == 1:
        assert process.exitcode == status
        assert f"stopped by {number.name}; the same command goes on" in output.read_text()
    else:  # the second ends it at once, or comes when the first has ended it
        assert process.exitcode in (-number, 130)
    assert "Traceback" not in output.read_text()
    assert finish(folder)[0] == 0
    assert RUN.outcome(folder) == whole.outcome


# Comes before everything else that Python runs: an hour back at each look, from the year 2001 on.
CLOCK = """
import time

now = 1e9

def backwards():
    global now
    now -= 3600
    return now

time.time = backwards
time.time_ns = lambda: int(backwards() * 1e9)
"""


@pytest.mark.slow
def test_a_clock_that_goes_backwards(whole, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    folder = tmp_path / "drill"
    interrupted(folder, whole, keep=("search",))
    for path in folder.rglob("*"):  # and what lies there is from the year 2096
        os.utime(path, (4e9, 4e9))
    places = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    (command,) = RUN.commands(folder)
    process = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert RUN.outcome(folder) == whole.outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_kills_at_random_moments(name, whole, tmp_path):
    reference = whole if name == "search" else refer(name, tmp_path / "whole", whole.folder)
    (tmp_path / "drill").mkdir()
    row = drill(name, 1, tmp_path / "drill", reference, whole.folder)
    assert row["losses"] == []


# A run that loses: it counts how often it was begun.
LOSES = """
import time
from pathlib import Path

def begin_again(arguments):
    path = Path(arguments[0]) / "begun"
    again = path.exists()
    path.write_text(path.read_text() + "x" if again else "x")
    print("search epoch 1/2", flush=True)
    if not again:
        time.sleep(60)  # until it is killed
    return int(len(arguments) > 1 and again)
"""


@pytest.mark.parametrize(
    ("more", "done", "loss"),
    [
        ([], {}, "is not what an operation leaves"),
        (["refuse"], {}, "ended with [1]"),
        ([], {"search": 1}, "did again what was complete"),
    ],
)
def test_the_drill_notices_a_loss(more, done, loss, tmp_path, monkeypatch):
    (tmp_path / "loses.py").write_text(LOSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    losing = Operation(
        lambda folder, whole: None,
        lambda folder: [["loses:begin_again", str(folder), *more]],
        lambda folder: {"begun": (folder / "begun").read_text()},
        lambda folder: done if (folder / "begun").exists() else {},
    )
    monkeypatch.setitem(OPERATIONS, "losing", losing)
    (tmp_path / "drill").mkdir()
    reference = Reference(tmp_path, {"begun": "x"}, 6.0)
    seed = next(s for s in range(99) if random.Random(f"losing {s}").randint(1, 3) == 1)
    row = drill("losing", seed, tmp_path / "drill", reference, tmp_path)
    assert len(row["kills"]) == 1
    assert any(loss in sentence for sentence in row["losses"])


def test_the_raw_rows_are_of_a_committed_tree_and_lose_nothing():
    rows = read_rows(ROOT / page.RESULTS)
    if not rows:
        pytest.skip("the drill has not been run yet")
    header, *drills = rows
    assert "dirty" not in header["environment"]["commit"]
    assert sum(len(row["kills"]) for row in drills) >= 100
    assert {row["operation"] for row in drills} == set(OPERATIONS)
    assert not any(row["losses"] for row in drills)
