"""Runs that were killed are taken up, and nothing that is not ours is touched."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from effconv_data.prepare import journal
from effconv_data.prepare.types import Archive, Block, quiet
from effconv_data.prepare.writer import write_set

RANDOM = np.random.default_rng(0)

PIXELS = {
    "train": RANDOM.integers(256, size=(50, 4, 5, 3), dtype=np.uint8),
    "test": RANDOM.integers(256, size=(20, 4, 5, 3), dtype=np.uint8),
}

LABELS = {split: np.arange(len(pixels)) % 3 for split, pixels in PIXELS.items()}


def archive(**changes):
    """A set whose train split comes in two blocks."""

    def block(split, part):
        return Block(LABELS[split][part], lambda: PIXELS[split][part].__getitem__)

    made = Archive(
        "small",
        ("cat", "dog", "eel"),
        (3, 4, 5),
        {
            "train": [block("train", slice(0, 31)), block("train", slice(31, 50))],
            "test": [block("test", slice(None))],
        },
        [{"file": "small.tar", "sha256": "00"}],
    )
    return made._replace(**changes)


def write(out, made=None, **options):
    options = {
        "shard_samples": 10,
        "seed": 0,
        "workers": 1,
        "overwrite": False,
        "on_progress": quiet,
        **options,
    }
    return write_set(made or archive(), Path(out), **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run writes."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    write(folder)
    return contents(folder)


def write_and_die(out, moment):
    """Write in this process until it is about to put something on the disk for the n-th time."""
    count = 0

    def before(function):
        def counting(*arguments, **options):
            nonlocal count
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return counting

    # What this changes dies with the process.
    os.fsync = before(os.fsync)
    Path.replace = before(Path.replace)
    Path.unlink = before(Path.unlink)
    write(out)


def die_at(out, moment):
    process = multiprocessing.get_context("fork").Process(target=write_and_die, args=(out, moment))
    process.start()
    process.join()
    return process.exitcode


def test_shards_are_trusted_only_by_their_sums(whole, tmp_path):
    out = tmp_path / "out"
    assert die_at(out, 19) == -signal.SIGKILL
    shards = sorted(out.glob("*.tar"))
    assert len(shards) >= 4
    changed = bytearray(shards[0].read_bytes())
    changed[700] ^= 1
    shards[0].write_bytes(changed)
    shards[1].write_bytes(shards[1].read_bytes()[:-512])
    shards[2].unlink()
    rows = len((out / ".progress.jsonl").read_text().splitlines()) - 1
    assert write(out).kept == rows - 3
    assert contents(out) == whole


@pytest.mark.parametrize("rest", [b"", b'{"file": "train-0', b"\x00\x00"])
def test_a_torn_line_is_forgotten(rest, whole, tmp_path):
    out = tmp_path / "out"
    assert die_at(out, 14) == -signal.SIGKILL
    progress = out / ".progress.jsonl"
    lines = progress.read_bytes().splitlines(keepends=True)
    progress.write_bytes(b"".join(lines[:-1]) + rest)
    assert write(out).kept == len(lines) - 2
    assert contents(out) == whole


@pytest.mark.parametrize(
    ("options", "made", "word"),
    [
        ({"seed": 1}, {}, "seed"),
        ({"shard_samples": 9}, {}, "shard_samples"),
        ({}, {"name": "other"}, "name"),
        ({}, {"classes": ("a", "b", "c")}, "classes"),
        ({}, {"sources": [{"file": "small.tar", "sha256": "01"}]}, "source"),
    ],
)
def test_an_interrupted_run_with_other_settings_is_kept(options, made, word, tmp_path):
    out = tmp_path / "out"
    assert die_at(out, 12) == -signal.SIGKILL
    before = contents(out)
    with pytest.raises(FileExistsError, match=rf"\b{word}\b"):
        write(out, archive(**made), **options)
    assert contents(out) == {name: data for name, data in before.items() if name != ".lock"}
    write(out, archive(**made), overwrite=True, **options)
    write(tmp_path / "fresh", archive(**made), **options)
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_finished_set_is_replaced_only_when_asked(whole, tmp_path):
    write(tmp_path / "out", shard_samples=3, seed=7)
    before = contents(tmp_path / "out")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(tmp_path / "out")
    assert contents(tmp_path / "out") == before
    write(tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "data"),
    [("letter.txt", b"dear"), ("train-00000.tar", b"of another"), ("index.json", b'{"a": 1}')],
)
def test_what_is_not_ours_is_left_alone(name, data, overwrite, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(data)
    with pytest.raises(FileExistsError, match=name):
        write(tmp_path / "out", overwrite=overwrite)
    assert contents(tmp_path / "out") == {name: data}


def test_replacing_leaves_what_the_user_added(whole, tmp_path):
    write(tmp_path / "out", seed=3)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    write(tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == {**whole, "notes.txt": b"mine"}


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        write(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    def hold(out, ready, done):
        with journal.claimed(out):
            ready.set()
            done.wait()

    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "out", ready, done))
    process.start()
    ready.wait()
    try:
        with pytest.raises(FileExistsError, match="written by another process"):
            write(tmp_path / "out")
    finally:
        done.set()
        process.join()
    write(tmp_path / "out")
