"""Test a network class by class: accuracy, loss, confusion matrix and worst mistakes."""

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv_core.engine.loader import (
    as_pair,
    check_last_batch,
    check_read_again,
    read_before,
)
from effconv_core.engine.train import check_test, class_labels, labelled
from effconv_core.layers.batch_checks import IGNORED, explained_pass
from effconv_core.layers.inputs import run_on

MOST_CONFUSED = 100
"""Classes up to which the confusion matrix is counted."""
Z = 1.959964
"""Standard deviations of a normal distribution to either side of 95 % of it."""


@dataclass(frozen=True)
class Mistake:
    """A sample whose class was not the likeliest.

    Attributes:
        index: place of the sample in the loader, from 0.
        image: the input as the loader gave it, on the CPU.
        label: its class.
        guess: the likeliest class.
        probability: of `guess`, by softmax.
    """

    index: int
    image: Tensor
    label: int
    guess: int
    probability: float


@dataclass(frozen=True)
class ByClass:
    """The outcome of a test.

    Attributes:
        loss: mean cross entropy, in nats.
        samples: number of samples.
        counts: `(classes, 2)` int64 on the CPU: number of samples of each class, and of those whose
            class was the likeliest. Samples of the label -100 have none.
        confusion: `(classes, classes)`, as `counts`: number of samples of each class (rows) that
            each class (columns) was the likeliest of; `(0, 0)` of more than 100 classes.
        mistakes: the mistakes of the highest probability, the highest first.
    """

    loss: float
    samples: int
    counts: Tensor
    confusion: Tensor
    mistakes: list[Mistake]

    @property
    def accuracy(self) -> float:
        """Fraction of the samples, from 0 to 1, whose class was the likeliest."""
        return int(self.counts[:, 1].sum()) / self.samples


@torch.no_grad()
def evaluate_by_class(
    model: nn.Module,
    loader: Iterable[tuple[Any, Any]],
    *,
    worst: int = 0,
    limit: int | None = None,
) -> ByClass:
    """Test a network on a split.

    Args:
        model: gives scores `(B, classes)`; it stays in evaluation mode.
        loader: gives images and class indices `(B,)`.
        worst: how many mistakes are kept.
        limit: most samples that are tested; all when None.

    Raises:
        FloatingPointError: if the images of the first batch are not finite.
        TypeError: if images or labels have a dtype that the network or class indices do not have.
        ValueError: if the loader gives nothing, the images do not fit the network, or a label is
            none of its classes.
    """
    model.eval()
    device = next(model.parameters(), torch.empty(0)).device
    counts = confusion = torch.zeros(0, 0, dtype=torch.int64)
    losses, samples = 0.0, 0
    mistakes: list[tuple[float, int, Mistake]] = []
    for step, batch in enumerate(loader):
        images, labels = labelled(batch, step, device)
        with explained_pass(model, images):
            outputs = run_on(model, images).float()
        classes = outputs.shape[-1]
        if step == 0:
            check_test(outputs, images, labels, 1)
            counts = torch.zeros(classes, 2, dtype=torch.int64)
            sides = (classes, classes) if classes <= MOST_CONFUSED else (0, 0)
            confusion = torch.zeros(sides, dtype=torch.int64)
        if limit is not None:
            outputs, labels = outputs[: limit - samples], labels[: limit - samples]
        known = _known(labels, classes, step)
        losses += F.cross_entropy(outputs, labels, reduction="sum").item()
        probabilities, guesses = outputs.softmax(1).max(1)
        true, guessed = labels[known].cpu(), guesses[known].cpu()
        right = true[true == guessed]
        counts += torch.stack([x.bincount(minlength=classes) for x in (true, right)], 1)
        if len(confusion):
            confusion += (true * classes + guessed).bincount(minlength=classes**2).view(sides)
        if worst and isinstance(images, Tensor):
            told = probabilities.isfinite()
            for place in ((guesses != labels) & known & told).nonzero().flatten().tolist():
                mistake = Mistake(
                    samples + place,
                    images[place].cpu(),
                    int(labels[place]),
                    int(guesses[place]),
                    float(probabilities[place]),
                )
                heapq.heappush(mistakes, (mistake.probability, -mistake.index, mistake))
                if len(mistakes) > worst:
                    heapq.heappop(mistakes)
        samples += len(labels)
        if samples == limit:
            break
    if not samples:
        raise ValueError("the loader of the test gave no sample; it must give at least one")
    ordered = sorted(mistakes, key=lambda entry: entry[:2], reverse=True)
    return ByClass(
        losses / samples, samples, counts, confusion, [mistake for _, _, mistake in ordered]
    )


def _known(labels: Tensor, classes: int, step: int) -> Tensor:
    """Return which labels `(B,)` are counted; raise for those that are no class."""
    known = labels != IGNORED
    if (outside := known & ((labels < 0) | (labels >= classes))).any():
        raise ValueError(
            f"batch {step + 1} of the test has {int(outside.sum())} label(s) that are none of "
            f"the network's classes, 0 to {classes - 1}; number the classes from 0, or build "
            "the network for more"
        )
    return known


def _check_test(model: nn.Module, loader: Iterable[tuple[Any, Any]]) -> None:
    """Raise for a test that would fail: in a pass of its first batch, or by the labels of any."""
    check_read_again(loader)
    classes = len(evaluate_by_class(model, loader, limit=1).counts)
    for step, batch in enumerate(loader):
        labels = as_pair(batch, f"batch {step + 1} of the test")[1]
        _known(class_labels(labels, torch.device("cpu")), classes, step)


def check_loaders(
    model: nn.Module,
    loader: Iterable[tuple[Any, Any]],
    test: Iterable[tuple[Any, Any]],
    validation: Iterable[tuple[Any, Any]] | None = None,
) -> None:
    """Raise, before a network is trained, for what would end its training or a test of it.

    Args:
        model: the network, in training mode afterwards.
        loader: of the training; its first batch is read.
        test: of the test; its first batch is tested, and the labels of all are looked at.
        validation: of the test after each epoch, which is looked at as the test is.

    Raises:
        TypeError: as `evaluate_by_class` does, or if a loader of a test cannot be read again.
        ValueError: as `evaluate_by_class` and `check_last_batch` do, or if a loader fails.
    """
    with read_before("the training data"):
        check_last_batch(model, loader, next(iter(loader))[0])
    if validation is not None:
        with read_before("the validation data"):
            _check_test(model, validation)
    with read_before("the test data"):
        _check_test(model, test)
    model.train()


def interval(accuracy: float, samples: int) -> tuple[float, float]:
    """Return the bounds of Wilson's interval of 95 % for a share that was counted.

    Args:
        accuracy: the share, from 0 to 1.
        samples: how many were counted, at least 1.

    References:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Examples:
        >>> [round(bound, 3) for bound in interval(0.9, 100)]
        [0.826, 0.945]
    """
    middle = (accuracy + Z**2 / (2 * samples)) / (1 + Z**2 / samples)
    half = Z * math.sqrt(accuracy * (1 - accuracy) / samples + (Z / (2 * samples)) ** 2)
    half /= 1 + Z**2 / samples
    # Rounding would leave a share of 0 or 1 just outside.
    return max(0.0, min(accuracy, middle - half)), min(1.0, max(accuracy, middle + half))
