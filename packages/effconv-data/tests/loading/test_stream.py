"""Streaming: the same batches as from memory, resumed anywhere, from any source."""

import functools
import gc
import importlib
import multiprocessing
import os
import pickle
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from effconv_data import ResidentBatches, StreamedBatches, horizontal_flip, load, pad_crop
from effconv_data.loading import order as order_module
from effconv_data.shards.index import Shard
from hypothesis import given, settings
from hypothesis import strategies as st


def augment(images, generator):
    return horizontal_flip(pad_crop(images, 1, generator), generator)


@pytest.fixture(scope="session")
def streamed(streamed):
    """Here the batches are augmented too."""
    return functools.partial(streamed, augment=augment)


@settings(deadline=None, max_examples=20)
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
    streamed, same, sets, name, split, batch_size, ranks, seed, epoch, window, limit, workers
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
def test_workers_change_nothing(streamed, same, sets, workers, split):
    options = {"split": split, "batch_size": 5}
    same(streamed(sets, workers=workers, **options), streamed(sets, **options))


@pytest.mark.parametrize("resident", [False, True])
def test_resumes_at_every_position(streamed, same, sets, resident):
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
def test_state_counts_what_was_given_not_what_workers_prepared(streamed, same, sets):
    batches = streamed(sets, "even", workers=2)
    begun = iter(batches)
    next(begun)
    assert batches.state_dict()["batch"] == 1
    whole = list(streamed(sets, "even"))
    for workers in (0, 1, 4):
        resumed = streamed(sets, "even", workers=workers)
        resumed.load_state_dict(batches.state_dict())
        same(resumed, whole[1:])


def test_resumes_on_another_number_of_ranks(streamed, same, sets):
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


def test_state_is_behind_the_last_batch_after_an_epoch(streamed, same, sets):
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
def test_a_foreign_state_is_refused(streamed, sets, change, problem):
    batches = streamed(sets)
    with pytest.raises(ValueError, match=problem):
        batches.load_state_dict(batches.state_dict() | change)
    with pytest.raises(ValueError, match="pass what state_dict"):
        batches.load_state_dict({})
    assert batches.state_dict()["batch"] == 0


def test_uint8_batches_and_given_statistics(streamed, sets):
    raw = streamed(sets, normalized=False, augment=None)
    plain = streamed(sets, mean=(0.0,), std=(1.0,), augment=None)
    for (a, _), (b, _) in zip(raw, plain, strict=True):
        assert a.dtype == torch.uint8
        assert torch.allclose(a.float() / 255, b)
    with pytest.raises(ValueError, match="only one of mean and std"):
        streamed(sets, mean=(0.0,))


@pytest.mark.parametrize("resident", [True, False])
def test_uint8_batches_want_no_mean_and_std(small_set, resident):
    made = small_set(shards={"test": [4], "train": [3]})
    folder = made.write()
    (folder / "train-00000.tar.gz").unlink()  # is not read for a mean that nobody uses
    options = {"split": "test", "batch_size": 2, "resident": resident, "workers": 0}
    batches = load(folder, normalized=False, **options)
    assert torch.cat([x for x, _ in batches]).dtype == torch.uint8
    assert (batches.mean, batches.std) == (None, None)
    given = load(folder, normalized=False, mean=(0.5,) * 3, std=(0.2,) * 3, **options)
    assert given.mean == (0.5,) * 3
    with pytest.raises(FileNotFoundError, match="train-00000"):
        load(folder, **options)


def test_batches_of_ones_own_want_no_mean_and_std_for_uint8():
    shards, kind = [Shard("x.tar", 4, None)], {"classes": "ab", "image_shape": (3, 4, 4)}
    options = {"batch_size": 2, **kind}
    assert StreamedBatches(shards, normalized=False, **options).mean is None
    with pytest.raises(ValueError, match="pass both, or normalized=False"):
        StreamedBatches(shards, **options)
    with pytest.raises(ValueError, match="only one of mean and std"):
        StreamedBatches(shards, normalized=False, mean=(0.5,) * 3, **options)
    images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    own = {"classes": "ab", "batch_size": 2}
    whole = ResidentBatches(images, torch.arange(4) % 2, normalized=False, **own)
    assert whole.mean is None
    assert [len(list(part)) for part in whole.divide(0.5)] == [1, 1]


def test_computed_statistics_are_those_of_the_train_split(streamed, sets):
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
    module = importlib.import_module("effconv_data.load")  # the package has a function of that name
    with patch.object(module, "available_memory", return_value=2 * 24 * 12 - 1):
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
def test_bad_arguments_are_refused(streamed, sets, options, kind, problem):
    with pytest.raises(kind, match=problem):
        streamed(sets, **options)


def test_a_pass_that_was_left_and_one_never_begun_leave_the_state_right(streamed, sets):
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


def test_streaming_leaves_the_global_generator_alone(streamed, sets):
    state = torch.get_rng_state()
    list(streamed(sets, workers=2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system shows no open files")
def test_many_epochs_leave_no_file_open_and_no_process(streamed, sets):
    def opened():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    batches = streamed(sets, workers=2)
    list(batches)
    most = opened() + 2
    for _ in range(5):
        list(batches)
        next(iter(batches))
    # The threads that feed a DataLoader's queues close their pipes some time after it has gone.
    until = time.monotonic() + 60
    while opened() > most and time.monotonic() < until:
        time.sleep(0.05)
    assert opened() <= most
    assert not multiprocessing.active_children()


@pytest.mark.faults
@pytest.mark.skipif(os.name != "posix", reason="readers are forked on POSIX alone")
def test_a_reader_that_hangs_is_an_error_and_the_rest_can_be_had(
    streamed, same, small_set, monkeypatch
):
    made = small_set(shards={"train": [4, 4], "test": [2]})
    made.write()

    def read(workers):
        options = {"split": "test", "batch_size": 1, "workers": workers}
        return streamed(made.folder.parent, made.folder.name, **options)

    whole, batches = list(read(0)), read(1)
    with monkeypatch.context() as patched:
        # As behind a disk that no longer answers; the forked reader has this too.
        patched.setattr("effconv_data.shards.stages._local_copy", lambda shard: time.sleep(600))
        patched.setattr("effconv_data.loading.stream.STALL", 1)
        # Seconds until torch ends a reader that does not heed its order to end.
        patched.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
        with pytest.raises(RuntimeError, match="shards of small gave nothing for 1 s; start"):
            next(iter(batches))
    resumed = read(1)
    resumed.load_state_dict(batches.state_dict())
    same(resumed, whole)
