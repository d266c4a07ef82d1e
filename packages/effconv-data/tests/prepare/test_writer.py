"""Writing shards: the same bytes always, nothing lost by a kill, nothing overwritten unasked."""

import importlib.util
import json
import signal
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from effconv_data import read_split
from effconv_data.prepare.types import Block
from effconv_data.prepare.writer import _plan
from hypothesis import given, settings
from hypothesis import strategies as st

spec = importlib.util.spec_from_file_location(
    "small_archive", Path(__file__).with_name("small_archive.py")
)
small_archive = importlib.util.module_from_spec(spec)
spec.loader.exec_module(small_archive)
archive, write, contents = small_archive.archive, small_archive.write, small_archive.contents
whole, die_at = small_archive.whole, small_archive.die_at
PIXELS, LABELS = small_archive.PIXELS, small_archive.LABELS


def test_files_of_a_set(whole):
    # Blocks of 31, 19 and 20 samples in shards of at most 10.
    shards = [f"train-{number:05d}.tar" for number in range(6)]
    assert sorted(whole) == ["index.json", "test-00000.tar", "test-00001.tar", *shards]


def test_members_are_plain_and_alike_everywhere(tmp_path):
    write(tmp_path / "out")
    for path in (tmp_path / "out").glob("*.tar"):
        data = path.read_bytes()
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        for member in members:
            assert data[member.offset + 257 : member.offset + 265] == b"ustar\x0000"
            assert (member.type, member.mode, member.mtime) == (tarfile.REGTYPE, 0o644, 0)
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert member.offset_data == member.offset + 512
        names = [member.name for member in members]
        keys = [name.removesuffix(".png") for name in names[::2]]
        assert names == [f"{key}.{part}" for key in keys for part in ("png", "cls")]


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_any_number_of_workers_writes_the_same(workers, whole, tmp_path):
    write(tmp_path / "out", workers=workers)
    assert contents(tmp_path / "out") == whole


def test_seed_orders_the_samples(whole, tmp_path):
    write(tmp_path / "out", seed=1)
    other = contents(tmp_path / "out")
    assert other["train-00000.tar"] != whole["train-00000.tar"]
    images, labels, _ = read_split(tmp_path / "out", "train")
    assert sorted(image.numpy().tobytes() for image in images) == sorted(
        image.tobytes() for image in PIXELS["train"].transpose(0, 3, 1, 2)
    )
    assert Counter(labels.tolist()) == Counter(LABELS["train"].tolist())


def test_index_counts_and_sums(whole):
    index = json.loads(whole["index.json"])
    assert index["schema"] == 2
    assert (index["name"], index["seed"]) == ("small", 0)
    assert index["splits"]["train"]["samples"] == 50
    assert index["splits"]["train"]["class_counts"] == [17, 17, 16]
    assert [row["samples"] for row in index["splits"]["train"]["shards"]] == [8, 8, 8, 7, 10, 9]
    for split in index["splits"].values():
        for row in split["shards"]:
            assert row["bytes"] == len(whole[row["file"]])
    train = PIXELS["train"].astype(np.float64) / 255
    assert index["mean"] == pytest.approx(train.mean((0, 1, 2)).tolist(), rel=1e-13)
    assert index["std"] == pytest.approx(train.std((0, 1, 2)).tolist(), rel=1e-13)


@settings(deadline=None, max_examples=80)
@given(
    blocks=st.lists(st.integers(1, 3000), min_size=1, max_size=12),
    shard_samples=st.none() | st.integers(1, 4000),
    side=st.sampled_from([1, 28, 64, 224]),
    seed=st.integers(0, 2**40),
)
def test_every_sample_is_in_one_shard(blocks, shard_samples, side, seed):
    made = archive(
        image_shape=(3, side, side),
        splits={"train": [Block(np.zeros(n, np.int64), lambda: None) for n in blocks]},
    )
    shards = list(_plan(made, "train", shard_samples=shard_samples, seed=seed))
    numbers = np.concatenate([shard.indices + shard.start for shard in shards])
    assert np.array_equal(np.sort(numbers), np.arange(sum(blocks)))
    assert [shard.file for shard in shards] == [f"train-{i:05d}.tar" for i in range(len(shards))]
    for block in range(len(blocks)):
        sizes = [len(shard.indices) for shard in shards if shard.block == block]
        assert max(sizes) - min(sizes) <= 1
        if shard_samples is not None:
            assert max(sizes) <= shard_samples
    if shard_samples is None:
        assert max(len(s.indices) for s in shards) * (1536 + 3 * side * side) <= 13_000_000
        if len(blocks) == 1 and blocks[0] >= 800:
            assert len(shards) >= 8


@pytest.mark.parametrize(
    ("samples", "shape", "shards"),
    [
        (60_000, (1, 28, 28), 12),
        (50_000, (3, 32, 32), 20),
        (10_000, (3, 32, 32), 8),
        (8_000, (3, 96, 96), 20),
        (799, (1, 28, 28), 7),
        (50, (1, 28, 28), 1),
    ],
)
def test_number_of_shards_of_known_splits(samples, shape, shards):
    block = Block(np.zeros(samples, np.int64), lambda: None)
    made = archive(image_shape=shape, splits={"train": [block]})
    assert len(list(_plan(made, "train", shard_samples=None, seed=0))) == shards


def test_a_kill_at_any_moment_loses_nothing(whole, tmp_path):
    kept, moment = [], 0
    while True:
        moment += 1
        out = tmp_path / str(moment)
        code = die_at(out, moment)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if (out / "index.json").exists():
            # Killed between the index and the tidying: the set is finished.
            assert {n: d for n, d in contents(out).items() if n in whole} == whole
            with pytest.raises(FileExistsError, match="holds a finished set"):
                write(out)
            continue
        kept.append(write(out).kept)
        assert contents(out) == whole
    # Progress, each shard and the index take about three moments each.
    assert moment > 3 * 9
    assert kept == sorted(kept)
    assert set(kept) == set(range(9))


def test_kills_one_after_another_come_to_an_end(whole, tmp_path):
    for moment in (3, 5, 7, 9, 11):
        assert die_at(tmp_path / "out", moment) == -signal.SIGKILL
    assert 0 < write(tmp_path / "out").kept < 8
    assert contents(tmp_path / "out") == whole


def test_a_kill_while_replacing_leaves_a_set_or_a_run(whole, tmp_path):
    for moment in range(1, 12):
        out = tmp_path / str(moment)
        write(out, shard_samples=7, seed=7)
        old = contents(out)
        assert die_at(out, moment, overwrite=True) == -signal.SIGKILL
        if (out / "index.json").exists():
            assert {n: d for n, d in contents(out).items() if n in old} == old
        else:
            write(out)
            assert contents(out) == whole


def test_an_error_in_a_worker_leaves_a_run_to_take_up(whole, tmp_path):
    out = tmp_path / "out"

    def broken():
        raise ValueError("photo.png is an image that cannot be decoded")

    made = archive()
    made.splits["test"][0] = made.splits["test"][0]._replace(open=lambda: lambda indices: broken)
    # A function of this test's cannot travel to a process.
    with pytest.raises(ValueError, match="photo.png"):
        write(out, made, workers=1)
    assert not (out / "index.json").exists()
    assert write(out).kept == 6
    assert contents(out) == whole


def test_progress_tells_every_sample(tmp_path):
    told = []
    write(tmp_path / "out", on_progress=told.append)
    train = [p.done for p in told if p.what == "writing train"]
    assert train == [0, 8, 16, 24, 31, 41, 50]
    assert {p.total for p in told if p.what == "writing test"} == {20}
    assert {p.unit for p in told} == {"samples"}
