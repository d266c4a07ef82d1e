"""Streaming: the same batches as from memory, resumed anywhere, from any source."""

import functools
import http.server
import json
import logging
import multiprocessing
import pickle
import threading
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from effconv_data import ShardError, horizontal_flip, load, pad_crop
from effconv_data import order as order_module
from hypothesis import given, settings
from hypothesis import strategies as st


def augment(images, generator):
    return horizontal_flip(pad_crop(images, 1, generator), generator)


def same(left, right):
    left, right = list(left), list(right)
    assert len(left) == len(right)
    for (a, b), (c, d) in zip(left, right):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def streamed(sets, name="uneven", **options):
    options = {"batch_size": 4, "resident": False, "workers": 0, "augment": augment, **options}
    return load(name, root=sets, **options)


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(["one", "even", "uneven"]),
    st.sampled_from(["train", "test"]),
    st.integers(1, 5),
    st.sampled_from([(0, 1), (0, 2), (1, 2), (2, 3)]),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(1, 5),
    st.sampled_from([None, 10]),
    st.sampled_from([0, 0, 0, 2]),
)
def test_streamed_batches_are_the_resident_ones(
    sets, name, split, batch_size, ranks, seed, epoch, window, limit, workers
):
    rank, world_size = ranks
    if split == "train" and batch_size * world_size > (limit or 20):
        return
    options = {
        "split": split,
        "batch_size": batch_size,
        "rank": rank,
        "world_size": world_size,
        "seed": seed,
        "limit": limit,
    }
    with patch.object(order_module, "WINDOW", window):
        stream = streamed(sets, name, workers=workers, **options)
        resident = streamed(sets, name, resident=True, **options)
        stream.set_epoch(epoch)
        resident.set_epoch(epoch)
        left, right = list(stream), list(resident)
    same(left, right)
    assert stream.epoch == resident.epoch == epoch + 1
    assert len(left) == len(stream)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("split", ["train", "test"])
def test_workers_change_nothing(sets, workers, split):
    options = {"split": split, "batch_size": 5}
    same(streamed(sets, workers=workers, **options), streamed(sets, **options))


@pytest.mark.parametrize("resident", [False, True])
def test_resumes_at_every_position(sets, resident):
    batches = streamed(sets, resident=resident, seed=2)
    batches.set_epoch(1)
    whole = list(batches)
    for position in range(len(whole)):
        interrupted = streamed(sets, resident=resident, seed=2)
        interrupted.set_epoch(1)
        begun = iter(interrupted)
        for _ in range(position):
            next(begun)
        state = pickle.loads(pickle.dumps(interrupted.state_dict()))
        resumed = streamed(sets, resident=not resident, seed=2)
        resumed.load_state_dict(state)
        resumed.set_epoch(1)  # of the same epoch, so it changes nothing
        same(resumed, whole[position:])
        # The epoch after it is a whole one.
        assert resumed.state_dict()["batch"] == 0
        assert len(list(resumed)) == len(whole)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_state_counts_what_was_given_not_what_workers_prepared(sets):
    batches = streamed(sets, "even", workers=2)
    begun = iter(batches)
    next(begun)
    assert batches.state_dict()["batch"] == 1
    whole = list(streamed(sets, "even"))
    for workers in (0, 1, 4):
        resumed = streamed(sets, "even", workers=workers)
        resumed.load_state_dict(batches.state_dict())
        same(resumed, whole[1:])


def test_resumes_on_another_number_of_ranks(sets):
    alone = streamed(sets, batch_size=4, augment=None)
    begun = iter(alone)
    given_before = [next(begun) for _ in range(2)]
    rest = list(begun)
    assert len(given_before) + len(rest) == len(alone)
    two = [streamed(sets, batch_size=2, rank=r, world_size=2, augment=None) for r in range(2)]
    state = streamed(sets, batch_size=4, augment=None).state_dict() | {"batch": 2}
    for rank in two:
        rank.load_state_dict(state)
    side_by_side = [
        (torch.cat([a, c]), torch.cat([b, d])) for (a, b), (c, d) in zip(*two, strict=True)
    ]
    same(side_by_side, rest)


def test_state_is_behind_the_last_batch_after_an_epoch(sets):
    batches = streamed(sets)
    for _ in batches:
        pass
    state = batches.state_dict()
    assert (state["epoch"], state["batch"]) == (1, 0)
    second = list(batches)
    resumed = streamed(sets)
    resumed.load_state_dict(state)
    same(resumed, second)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seed": 5}, "seed is 5, not 0"),
        ({"samples": 9}, "samples is 9, not 26"),
        ({"global_batch": 8}, "global_batch is 8, not 4"),
        ({"order": "another"}, "order is another, not "),
        ({"training": False}, "training is False, not True"),
        ({"batch": 99}, "batch 99; an epoch has 6"),
        ({"batch": -1}, "batch of the state is -1"),
        ({"epoch": -1}, "epoch of the state is -1"),
    ],
)
def test_a_foreign_state_is_refused(sets, change, problem):
    batches = streamed(sets)
    with pytest.raises(ValueError, match=problem):
        batches.load_state_dict(batches.state_dict() | change)
    with pytest.raises(ValueError, match="pass what state_dict"):
        batches.load_state_dict({})
    assert batches.state_dict()["batch"] == 0


def test_uint8_batches_and_given_statistics(sets):
    raw = streamed(sets, normalized=False, augment=None)
    plain = streamed(sets, mean=(0.0,), std=(1.0,), augment=None)
    for (a, _), (b, _) in zip(raw, plain, strict=True):
        assert a.dtype == torch.uint8
        assert torch.allclose(a.float() / 255, b)
    with pytest.raises(ValueError, match="only one of mean and std"):
        streamed(sets, mean=(0.0,))


def test_computed_statistics_are_those_of_the_train_split(sets):
    batches = streamed(sets, "even", split="test")
    pixels = torch.cat(
        [
            x
            for x, _ in streamed(
                sets, "even", normalized=False, split="train", batch_size=24, augment=None
            )
        ]
    )
    assert batches.mean == pytest.approx((pixels.double().mean().item() / 255,))
    assert batches.std == pytest.approx((pixels.double().std(correction=0).item() / 255,))


def test_known_sets_have_their_augmentation(small_set):
    made = small_set("stl10", shards={"train": [8], "test": [2]}, shape=(96, 96, 3))
    root = made.write().parent
    crops = torch.cat([x for x, _ in load("stl10", root=root, batch_size=8, normalized=False)])
    assert (crops == 0).all(dim=3).any()  # of the padding, which noise has not
    test = torch.cat(
        [x for x, _ in load("stl10", split="test", root=root, batch_size=2, normalized=False)]
    )
    assert torch.equal(test, torch.from_numpy(made.pixels["test"]).permute(0, 3, 1, 2))


def test_resident_where_it_fits(sets):
    kind = type(load("even", root=sets, batch_size=2)).__name__
    assert kind == "ResidentBatches"
    with patch("effconv_data.load.available_memory", return_value=2 * 24 * 12 - 1):
        assert type(load("even", root=sets, batch_size=2)).__name__ == "StreamedBatches"
        assert type(load("even", root=sets, batch_size=2, limit=23)).__name__ == kind


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        ({"rank": 2, "world_size": 2}, ValueError, "rank is 2 and world_size 2"),
        ({"world_size": 0}, ValueError, "world_size is 0"),
        ({"workers": -1}, ValueError, "workers is -1"),
        ({"workers": 1.5}, TypeError, "workers is 1.5"),
        ({"on_error": "ignore"}, ValueError, "on_error is 'ignore'"),
        ({"batch_size": 14, "world_size": 2}, ValueError, "14 on each of 2 ranks but there are 26"),
        ({"limit": 0}, ValueError, "limit is 0"),
    ],
)
def test_bad_arguments_are_refused(sets, options, kind, problem):
    with pytest.raises(kind, match=problem):
        streamed(sets, **options)


# Damage: stop with shard, key and reason, or skip and count.


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
def test_stops_with_shard_key_and_reason(damaged, workers):
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
def test_skips_counts_and_reports(damaged, resident, caplog):
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


def test_skipping_streams_what_it_has_from_memory(damaged):
    options = {"mean": (0.5,), "std": (0.5,), "on_error": "skip", "batch_size": 13}
    stream = streamed(damaged.parent, damaged.name, **options)
    resident = streamed(damaged.parent, damaged.name, resident=True, **options)
    same(stream, resident)
    assert sorted(stream.problems) == sorted(resident.problems)


def test_a_missing_shard_can_be_skipped(small_set):
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


def test_a_set_of_which_nothing_is_left_is_an_error(small_set):
    folder = small_set(shards={"train": [6], "test": [1]}, shape=(3, 4, 1)).write()
    (folder / "train-00000.tar.gz").write_bytes(b"")
    index = json.loads((folder / "index.json").read_text()) | {"image_shape": [1, 3, 4]}
    (folder / "index.json").write_text(json.dumps(index))
    options = {"mean": (0.5,), "std": (0.5,), "batch_size": 2, "on_error": "skip"}
    for resident in (False, True):
        batches = streamed(folder.parent, folder.name, resident=resident, **options)
        with pytest.raises(ShardError, match="no sample of small can be read, the first because"):
            list(batches)


def test_damage_does_not_change_the_statistics_unseen(small_set):
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


def test_skipped_samples_are_counted_over_an_interruption(damaged, caplog):
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


def test_a_pass_that_was_left_and_one_never_begun_leave_the_state_right(sets):
    batches = streamed(sets)
    begun = iter(batches)
    next(begun)
    next(begun)
    assert batches.state_dict()["batch"] == 2
    begun = iter(batches)
    next(begun)
    assert batches.state_dict()["batch"] == 1
    batches.set_epoch(0)
    assert batches.state_dict()["batch"] == 0
    batches.load_state_dict(batches.state_dict() | {"batch": 4})
    iter(batches)
    assert len(list(batches)) == len(batches) - 4


def test_streaming_leaves_the_global_generator_alone(sets):
    state = torch.get_rng_state()
    list(streamed(sets, workers=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_small_shard_that_unpacks_to_a_large_one_is_refused(small_set):
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
    for number, name in enumerate(("evil", ".hidden.pkl", "folder/.x.png", "train.")):
        made = small_set(f"set{number}", shards={"train": [2], "test": [1]}, shape=(3, 4, 1))
        made.members["train-00000.tar.gz"].append((name, b"x"))
        with pytest.raises(ShardError, match=f"has the member '{name}', which belongs to no"):
            load(made.write(), batch_size=1)


def test_a_wrong_sum_stops_or_skips_the_shard(small_set):
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


def test_members_that_may_run_code_are_refused_by_name(small_set):
    made = small_set(shards={"train": [2], "test": [1]}, shape=(3, 4, 1))
    made.members["train-00000.tar.gz"].insert(1, ("train-000000.pyd", pickle.dumps(print)))
    folder = made.write()
    with pytest.raises(ShardError, match=r"has the member train-000000.pyd; only jpg"):
        list(streamed(folder.parent, folder.name, batch_size=2, mean=(0.5,), std=(0.5,)))


def test_other_safe_parts_and_hostile_names_do_no_harm(small_set, tmp_path):
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


# Sources.


@pytest.fixture
def server(sets):
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(quiet, directory=str(sets))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("workers", [0, 2])
def test_from_a_web_server(sets, server, workers):
    local = streamed(sets)
    same(streamed(server, workers=workers), local)
    same(load(f"{server}/uneven", batch_size=4, resident=False, augment=augment), streamed(sets))
    with pytest.raises(FileNotFoundError, match="404"):
        load(f"{server}/nothing", batch_size=4)


def test_a_page_of_an_error_is_no_shard(sets, server):
    with pytest.raises(ShardError, match=r"train-00099.tar cannot be read \(HTTP Error 404"):
        load([f"{server}/uneven/train-00099.tar"], batch_size=4)


@pytest.mark.parametrize(
    "source",
    [
        "{}/even/train-*.tar.gz",
        "{}/even/train-{{00000..00003}}.tar.gz",
        "{}/even/train-00000.tar.gz::{}/even/train-{{00001..00003}}.tar.gz",
    ],
)
def test_from_shards_without_an_index(sets, source):
    shards = load(source.format(sets, sets), batch_size=4, resident=False, workers=2)
    assert shards.classes == ("0", "1", "2")
    assert shards.samples == 24
    indexed = streamed(sets, "even", augment=None)
    assert (shards.mean, shards.std) == (indexed.mean, indexed.std)
    same(shards, indexed)


def test_from_a_pipe(sets):
    files = [f"pipe:cat {sets}/even/train-0000{number}.tar.gz" for number in range(4)]
    same(load(files, batch_size=4, resident=False), streamed(sets, "even", augment=None))
    with pytest.raises(ShardError, match="cannot be read"):
        load("pipe:cat /nothing/there.tar", batch_size=4)


def test_an_index_cannot_name_a_command(small_set):
    made = small_set()
    made.index["splits"]["train"]["shards"][0]["file"] = "pipe:touch harm #.tar"
    folder = made.write()
    (folder / "pipe:touch harm #.tar").write_bytes(b"")
    with pytest.raises(ShardError, match="cut off"):
        list(load(folder, batch_size=1, resident=False))
    assert not (folder / "harm").exists()


def test_no_shard_matches(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file matches"):
        load(f"{tmp_path}/*.tar", batch_size=4)
    with pytest.raises(ValueError, match="name at least one"):
        load([], batch_size=4)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system shows no open files")
def test_many_epochs_leave_no_file_open_and_no_process(sets):
    batches = streamed(sets, workers=2)
    list(batches)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        list(batches)
        next(iter(batches))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    assert not multiprocessing.active_children()
