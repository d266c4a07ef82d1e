"""Tests class by class, against counts by hand."""

import pytest
import torch
import torch.nn.functional as F
from effconv_core.engine.by_class import (
    MOST_CONFUSED,
    check_loaders,
    evaluate_by_class,
    interval,
)
from torch import nn


class Says(nn.Module):
    """Gives the first pixels as scores."""

    def forward(self, images):
        return images.flatten(1)[:, :3]


def batches(*pairs, size=2):
    """Batches of images that hold three scores each, and labels."""
    scores = torch.tensor([scores for scores, _ in pairs], dtype=torch.float32)
    labels = torch.tensor([label for _, label in pairs])
    images = F.pad(scores, (0, 1)).view(-1, 1, 2, 2)
    return list(zip(images.split(size), labels.split(size)))


FIVE = [((4, 0, 0), 0), ((0, 2, 0), 0), ((0, 9, 0), 2), ((0, 0, 1), 2), ((0, 1, 0), 1)]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_samples_are_counted_by_class_and_guess(size):
    found = evaluate_by_class(Says(), batches(*FIVE, size=size), worst=5)
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 1]]
    assert (found.samples, found.accuracy) == (5, 0.6)
    scores, labels = zip(*FIVE)
    loss = F.cross_entropy(torch.tensor(scores, dtype=torch.float32), torch.tensor(labels))
    assert found.loss == pytest.approx(loss.item())
    assert [(m.index, m.label, m.guess) for m in found.mistakes] == [(2, 2, 1), (1, 0, 1)]
    assert found.mistakes[0].image[0, 0].tolist() == [0, 9]


def test_only_the_surest_mistakes_are_kept():
    found = evaluate_by_class(Says(), batches(*FIVE), worst=1)
    assert [mistake.index for mistake in found.mistakes] == [2]
    assert evaluate_by_class(Says(), batches(*FIVE)).mistakes == []


@pytest.mark.parametrize("limit", [1, 3, 5, 99])
def test_a_limit_takes_the_first_samples(limit):
    found = evaluate_by_class(Says(), batches(*FIVE), limit=limit)
    assert found.samples == min(limit, 5)


@pytest.mark.parametrize("inputs", [lambda x: (x, x), lambda x: {"a": x, "b": x}])
def test_a_limit_takes_samples_of_several_inputs(inputs):
    class Sum(Says):
        def forward(self, a, b):
            return super().forward(a + b)

    given = [(inputs(images), labels) for images, labels in batches(*FIVE)]
    found = evaluate_by_class(Sum(), given, limit=3)
    assert found.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_labels_that_are_no_tensor_are_one_sentence():
    ((images, _),) = batches(*FIVE, size=5)
    for batch in ((images, [0, 1, 2, 0, 1]), {"images": images}):
        with pytest.raises(TypeError, match="labels"):
            evaluate_by_class(Says(), [batch])


def test_of_many_classes_only_the_counts_are_kept():
    class Many(nn.Module):
        def forward(self, images):
            return F.one_hot(images[:, 0].long(), MOST_CONFUSED + 1).float()

    images, labels = torch.tensor([[0], [7], [7], [100]]), torch.tensor([0, 7, 8, 100])
    found = evaluate_by_class(Many(), [(images, labels)])
    assert (found.accuracy, found.confusion.shape) == (0.75, (0, 0))
    counts = {label: row for label, row in enumerate(found.counts.tolist()) if row != [0, 0]}
    assert counts == {0: [1, 1], 7: [1, 1], 8: [1, 0], 100: [1, 1]}


def test_a_guess_without_a_probability_is_no_mistake_to_show():
    nan = float("nan")
    pairs = [((0, 2, 0), 0), ((nan, 0, 0), 1)]
    found = evaluate_by_class(Says(), batches(*pairs, size=1), worst=5)
    assert [mistake.index for mistake in found.mistakes] == [0]
    assert found.samples == 2


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_refused_wherever_it_comes(label):
    with pytest.raises(ValueError, match="0 to 2"):
        evaluate_by_class(Says(), batches(*FIVE, ((1, 0, 0), label)))


def test_nothing_cannot_be_tested():
    with pytest.raises(ValueError, match="loader"):
        evaluate_by_class(Says(), [])


@pytest.mark.parametrize(
    ("test", "error"),
    [
        ([], "no sample"),
        (batches(((1, 0, 0), 3)), "0 to 2"),
        ([(torch.ones(2, 1, 2, 2), torch.zeros(2))], "class indices"),
        (iter(batches(*FIVE)), "gives its batches once"),
    ],
)
def test_loaders_that_would_end_a_test_are_refused_before(test, error):
    model = Says()
    check_loaders(model, batches(*FIVE), batches(*FIVE))
    assert model.training
    with pytest.raises((TypeError, ValueError), match=error):
        check_loaders(model, batches(*FIVE), test)


class Breaks(list):
    """Breaks in its third batch, as the user's own code may."""

    def __iter__(self):
        yield from self[:2]
        raise KeyError("a picture")


@pytest.mark.parametrize("which", ["validation", "test"])
@pytest.mark.parametrize(
    ("loader", "error"),
    [
        (batches(*FIVE, ((1, 0, 0), 3)), "0 to 2"),
        (Breaks(batches(*FIVE)), "KeyError.*'a picture'"),
        ([], "no sample"),
    ],
)
def test_all_of_a_test_is_read_before_and_a_sentence_names_it(loader, error, which):
    loaders = {"test": batches(*FIVE), "validation": batches(*FIVE)}
    check_loaders(Says(), batches(*FIVE), **loaders)
    with pytest.raises(ValueError, match=f"{which}.*{error}"):
        check_loaders(Says(), batches(*FIVE), **{**loaders, which: loader})


def test_a_last_batch_of_one_sample_is_refused_before():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    check_loaders(model, batches(*FIVE[:4]), batches(*FIVE))
    with pytest.raises(ValueError, match="one sample"):
        check_loaders(model, batches(*FIVE), batches(*FIVE))


def test_an_interval_by_hand():
    # Wilson's for 8 of 10: 0.490 to 0.943.
    assert interval(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert interval(1.0, 1)[1] == 1.0
    low, high = interval(0.5, 10**6)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 1000, rel=1e-3)
