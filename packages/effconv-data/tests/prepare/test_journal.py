"""Runs that were killed are taken up, and nothing that is not ours is touched."""

import importlib.util
import multiprocessing
import signal
from pathlib import Path

import pytest
from effconv_data.prepare import journal

spec = importlib.util.spec_from_file_location(
    "small_archive", Path(__file__).with_name("small_archive.py")
)
small_archive = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small_archive)
archive, write, contents = small_archive.archive, small_archive.write, small_archive.contents
whole, die_at = small_archive.whole, small_archive.die_at


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
