"""Damage: the run stops with shard, key and reason, or skips and counts."""

import json
import logging
import pickle

import pytest
import torch
from effconv_data import ShardError, load


@pytest.fixture
def damaged(small_set):
    """26 samples in 3 shards; one without label, one no image, and a shard cut off."""
    made = small_set(shards={"train": [9, 9, 8], "test": [1]}, shape=(3, 4, 1))
    made.members["train-00000.tar.gz"][4:6] = [
        ("train-000002.png", b"no png"),
        ("train-000002.cls", b"0"),
    ]
    made.members["train-00001.tar.gz"].pop(1)
    folder = made.write()
    made.index["splits"]["train"]["shards"][2]["file"] = "train-00002.tar"
    made.members["train-00002.tar"] = made.members.pop("train-00002.tar.gz")
    made.write()
    path = folder / "train-00002.tar"
    path.write_bytes(path.read_bytes()[: 512 * 4 * 6 + 100])  # inside the seventh sample
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_stops_with_shard_key_and_reason(streamed, damaged, workers):
    batches = streamed(damaged.parent, damaged.name, workers=workers, mean=(0.5,), std=(0.5,))
    with pytest.raises(
        ShardError,
        match=r"(train-000002 of .*train-00000.tar.gz has a .png that cannot be decoded"
        r"|train-000009 of .*train-00001.tar.gz has no .cls"
        r"|train-00002.tar cannot be read \(it is cut off at byte 12388)",
    ) as caught:
        list(batches)
    assert caught.value.problem.shard.startswith(str(damaged))


@pytest.mark.parametrize("resident", [False, True])
def test_skips_counts_and_reports(streamed, damaged, resident, caplog):
    options = {"mean": (0.5,), "std": (0.5,), "on_error": "skip", "batch_size": 13, "augment": None}
    batches = streamed(damaged.parent, damaged.name, resident=resident, workers=2, **options)
    for epoch in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "effconv_data"):
            labels = torch.cat([y for _, y in batches])
        assert len(labels) == 26 - 5
        keys = [(p.shard.rsplit("/", 1)[1], p.key) for p in batches.problems]
        assert sorted(keys, key=str) == [
            ("train-00000.tar.gz", "train-000002"),
            ("train-00001.tar.gz", "train-000009"),
            # The sixth is whole, but where a shard is cut off nobody can tell.
            *[("train-00002.tar", None)] * 3,
        ]
        (record,) = caplog.records
        assert f"epoch {epoch} of small: 5 samples were skipped" in record.getMessage()


def test_skipping_streams_what_it_has_from_memory(streamed, same, damaged):
    options = {"mean": (0.5,), "std": (0.5,), "on_error": "skip", "batch_size": 13}
    stream = streamed(damaged.parent, damaged.name, **options)
    resident = streamed(damaged.parent, damaged.name, resident=True, **options)
    same(stream, resident)
    assert sorted(stream.problems) == sorted(resident.problems)


def test_a_missing_shard_can_be_skipped(streamed, small_set):
    made = small_set(shards={"train": [6, 6], "test": [2, 6, 1]}, shape=(3, 4, 1))
    folder = made.write()
    (folder / "train-00000.tar.gz").unlink()
    (folder / "test-00001.tar.gz").unlink()
    options = {"mean": (0.5,), "std": (0.5,), "augment": None}
    with pytest.raises(FileNotFoundError, match="1 of 2 shards"):
        streamed(folder.parent, folder.name, **options)
    batches = streamed(folder.parent, folder.name, on_error="skip", batch_size=12, **options)
    assert len(torch.cat([y for _, y in batches])) == 6
    assert len(batches.problems) == 6
    # In evaluation a batch may lose all its samples; it is given all the same, so that ranks whose
    # batches are whole do not wait for one that is not given.
    for resident in (False, True):
        options |= {"split": "test", "on_error": "skip", "batch_size": 3, "resident": resident}
        batches = streamed(folder.parent, folder.name, **options)
        assert [len(y) for _, y in batches] == [2, 0, 1]
        assert len(batches.problems) == 6
        assert len(list(batches)) == 3


def test_a_set_of_which_nothing_is_left_is_an_error(streamed, small_set):
    folder = small_set(shards={"train": [6], "test": [1]}, shape=(3, 4, 1)).write()
    (folder / "train-00000.tar.gz").write_bytes(b"")
    index = json.loads((folder / "index.json").read_text()) | {"image_shape": [1, 3, 4]}
    (folder / "index.json").write_text(json.dumps(index))
    options = {"mean": (0.5,), "std": (0.5,), "batch_size": 2, "on_error": "skip"}
    for resident in (False, True):
        batches = streamed(folder.parent, folder.name, resident=resident, **options)
        with pytest.raises(ShardError, match="no sample of small can be read, the first because"):
            list(batches)


def test_damage_does_not_change_the_statistics_unseen(streamed, small_set):
    made = small_set(shards={"train": [6, 6], "test": [4]}, shape=(3, 4, 1))
    folder = made.write()
    made.sign()
    whole = streamed(folder.parent, folder.name, split="test").mean
    path = folder / "train-00001.tar.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ShardError, match="train-00001.tar.gz does not have the sha256"):
        streamed(folder.parent, folder.name, split="test")
    half = streamed(folder.parent, folder.name, split="test", on_error="skip").mean
    assert half != whole
    assert half[0] == pytest.approx(made.pixels["train"][:6].mean() / 255)
    (folder / "train-00000.tar.gz").write_bytes(b"")
    with pytest.raises(ShardError, match="sha256"):
        streamed(folder.parent, folder.name, split="test", on_error="skip")
    del made.index["splits"]["train"]
    (folder / "index.json").write_text(json.dumps(made.index))
    with pytest.raises(ValueError, match="neither mean and std nor a train split"):
        streamed(folder.parent, folder.name, split="test")


def test_skipping_reaches_shards_without_an_index(damaged):
    pattern = f"{damaged}/train-*"
    with pytest.raises(ShardError, match="cannot be decoded|no .cls|cut off"):
        load(f"{pattern}.tar.gz", batch_size=6)
    options = {"split": "test", "on_error": "skip", "resident": False}
    batches = load(f"{pattern}.tar.gz", batch_size=6, **options)
    # Two samples are damaged; the third shard lies there also whole, compressed.
    assert len(torch.cat([y for _, y in batches])) == 26 - 2


def test_skipped_samples_are_counted_over_an_interruption(streamed, damaged, caplog):
    options = {"mean": (0.5,), "std": (0.5,), "on_error": "skip", "batch_size": 2, "seed": 1}
    batches = streamed(damaged.parent, damaged.name, **options)
    begun = iter(batches)
    for _ in range(7):
        next(begun)
    before = len(batches.problems)
    assert before > 0
    state = batches.state_dict()
    assert state["skipped"] == before
    resumed = streamed(damaged.parent, damaged.name, **options)
    resumed.load_state_dict(state)
    with caplog.at_level(logging.WARNING, "effconv_data"):
        list(resumed)
    assert "epoch 0 of small: 5 samples were skipped" in caplog.records[0].getMessage()
    assert resumed.state_dict()["skipped"] == 0


def test_a_small_shard_that_unpacks_to_a_large_one_is_refused(streamed, small_set):
    made = small_set(shards={"train": [4], "test": [1]}, shape=(3, 4, 1))
    members = made.members["train-00000.tar.gz"]
    members[0] = (members[0][0], members[0][1] + bytes(1 << 19))
    members.insert(4, ("train-000001.txt", bytes(1 << 20)))  # is not kept, and does no harm
    folder = made.write()
    options = {"mean": (0.5,), "std": (0.5,), "batch_size": 4}
    for resident in (False, True):
        with pytest.raises(ShardError, match=r"train-000000 .* has 524\d+ bytes, which no image"):
            list(streamed(folder.parent, folder.name, resident=resident, **options))


def test_members_that_belong_to_no_sample_are_refused_by_name(small_set):
    for number, name in enumerate(("train.", "x.__url__", "train-000001.__BAD__", "y.__key__")):
        made = small_set(f"set{number}", shards={"train": [2], "test": [1]}, shape=(3, 4, 1))
        made.members["train-00000.tar.gz"].append((name, b"x"))
        with pytest.raises(ShardError, match=f"has the member '{name}', which belongs to no"):
            load(made.write(), batch_size=1)


def test_a_wrong_sum_stops_or_skips_the_shard(streamed, small_set):
    made = small_set(shards={"train": [6, 6], "test": [1]}, shape=(3, 4, 1))
    folder = made.write()
    made.sign()
    path = folder / "train-00001.tar.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    options = {"mean": (0.5,), "std": (0.5,), "batch_size": 12, "augment": None}
    with pytest.raises(ShardError, match="train-00001.tar.gz does not have the sha256"):
        list(streamed(folder.parent, folder.name, **options))
    batches = streamed(folder.parent, folder.name, on_error="skip", **options)
    assert len(torch.cat([y for _, y in batches])) == 6


def test_members_that_may_run_code_are_refused_by_name(streamed, small_set):
    made = small_set(shards={"train": [2], "test": [1]}, shape=(3, 4, 1))
    made.members["train-00000.tar.gz"].insert(1, ("train-000000.pyd", pickle.dumps(print)))
    folder = made.write()
    with pytest.raises(ShardError, match=r"has the member train-000000.pyd; only jpg"):
        list(streamed(folder.parent, folder.name, batch_size=2, mean=(0.5,), std=(0.5,)))


def test_other_safe_parts_and_hostile_names_do_no_harm(streamed, small_set, tmp_path):
    made = small_set(shards={"train": [2], "test": [1]}, shape=(3, 4, 1))
    members = made.members["train-00000.tar.gz"]
    members[1:1] = [("train-000000.txt", b"a cat"), ("train-000000.json", b"{}")]
    # The second sample's key climbs out of every folder.
    members[-2:] = [
        (f"../../../escaped{e}", d) for e, d in ((".png", members[-2][1]), (".cls", b"1"))
    ]
    folder = made.write()
    before = sorted(tmp_path.rglob("*"))
    images = [x for x, _ in streamed(folder.parent, folder.name, batch_size=2, workers=1)]
    assert len(images[0]) == 2
    assert sorted(tmp_path.rglob("*")) == before
