"""What all sources of batches share: epochs, positions, normalisation and augmentation."""

import pytest
import torch
from effconv_data import ShardError
from effconv_data.loading.resident import ResidentBatches
from effconv_data.shards.problems import Problem


def make(samples=10, **options):
    images = torch.arange(samples * 4, dtype=torch.uint8).view(samples, 1, 2, 2)
    values = {"classes": ("a", "b"), "batch_size": 3, "training": True, "seed": 5}
    return ResidentBatches(images, torch.arange(samples) % 2, **values | options)


def raw(batches):
    return [images.flatten().tolist() for images, _ in batches]


def test_the_epoch_advances_with_the_last_batch():
    batches = make(normalized=False)
    first = iter(batches)
    next(first)
    assert (batches.epoch, batches.state_dict()["batch"]) == (0, 1)
    list(first)
    assert (batches.epoch, batches.state_dict()["batch"]) == (1, 0)
    again = make(normalized=False)
    again.set_epoch(1)
    assert raw(batches) == raw(again)


def test_an_iterator_that_nobody_reads_has_no_effect():
    batches = make(normalized=False)
    iter(batches)
    assert batches.state_dict()["batch"] == 0
    assert len(raw(batches)) == len(batches)


@pytest.mark.parametrize("given", [0, 1, 2])
def test_a_state_goes_on_at_the_following_batch(given):
    batches, whole = make(normalized=False), raw(make(normalized=False))
    pass_ = iter(batches)
    for _ in range(given):
        next(pass_)
    other = make(normalized=False)
    other.load_state_dict(batches.state_dict())
    assert raw(other) == whole[given:]
    assert raw(other) == raw_of_epoch(1)


def raw_of_epoch(epoch):
    batches = make(normalized=False)
    batches.set_epoch(epoch)
    return raw(batches)


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        ({"seed": 6}, ValueError, "seed"),
        ({"global_batch": 4}, ValueError, "global_batch"),
        ({"batch": 3}, ValueError, "3"),
        ({"batch": -1}, ValueError, "-1"),
        ({"epoch": 0.5}, TypeError, "0.5"),
        ({"skipped": -2}, ValueError, "-2"),
    ],
)
def test_a_state_of_something_else_is_refused_by_name(change, kind, named):
    batches = make()
    with pytest.raises(kind, match=named):
        batches.load_state_dict({**batches.state_dict(), **change})
    assert (batches.epoch, batches.state_dict()["batch"]) == (0, 0)


@pytest.mark.parametrize("state", [None, {}, {"epoch": 1}, [1, 2]])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match="state"):
        make().load_state_dict(state)


def test_another_epoch_drops_an_unfinished_position():
    batches = make(normalized=False)
    state = batches.state_dict() | {"batch": 2}
    batches.load_state_dict(state)
    batches.set_epoch(0)
    assert len(raw(batches)) == 1
    batches.load_state_dict(state)
    batches.set_epoch(1)
    assert raw(batches) == raw_of_epoch(1)


def test_images_are_augmented_and_then_normalised():
    def shifted(images, generator):
        assert images.dtype == torch.uint8
        return images + 1

    batches = make(training=False, augment=shifted, mean=(0.5,), std=(0.25,))
    (images, labels), *_ = batches
    expected = ((torch.arange(12).view(3, 1, 2, 2) + 1) / 255 - 0.5) / 0.25
    torch.testing.assert_close(images, expected)
    assert labels.tolist() == [0, 1, 0]


def test_each_batch_augments_by_its_own_stream():
    drawn = []

    def noted(images, generator):
        drawn.append(torch.rand(1, generator=generator).item())
        return images

    for _ in range(2):
        list(make(augment=noted))
    assert drawn[:3] == drawn[3:]
    assert len(set(drawn)) == 3
    batches = make(augment=noted)
    batches.load_state_dict(batches.state_dict() | {"batch": 2})
    list(batches)
    assert drawn[6:] == drawn[2:3]


def test_samples_that_cannot_be_read_make_a_batch_smaller(caplog):
    problem = Problem("a.tar", "k", "sample k is red")
    batches = make(training=False, missing={4: problem}, normalized=False)
    assert [len(labels) for _, labels in batches] == [3, 2, 3, 1]
    assert batches.problems == [problem]
    assert "sample k is red" in caplog.text


def test_a_set_of_which_nothing_can_be_read_is_an_error():
    problem = Problem("a.tar", "k", "sample k is red")
    batches = make(2, training=False, missing={0: problem, 1: problem}, normalized=False)
    with pytest.raises(ShardError, match="sample k is red"):
        list(batches)
