"""Test a network class by class: accuracy, loss, confusion matrix and worst mistakes."""

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv_core.engine.loader import as_pair
from effconv_core.engine.train import check_test
from effconv_core.layers.batch_checks import IGNORED, explained_pass
from effconv_core.layers.inputs import on_device, run_on

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
        confusion: `(classes, classes)` int64 on the CPU: number of samples of each class (rows)
            that each class (columns) was the likeliest of. Samples of the label -100 have none.
        mistakes: the mistakes of the highest probability, the highest first.
    """

    loss: float
    samples: int
    confusion: Tensor
    mistakes: list[Mistake]

    @property
    def accuracy(self) -> float:
        """Fraction of the samples, from 0 to 1, whose class was the likeliest."""
        return int(self.confusion.trace()) / self.samples


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
    confusion, losses, samples = torch.zeros(0, 0, dtype=torch.int64), 0.0, 0
    mistakes: list[tuple[float, int, Mistake]] = []
    for step, batch in enumerate(loader):
        pair = as_pair(batch, f"batch {step + 1} of the test")
        images, labels = (on_device(part, device) for part in pair)
        if limit is not None:
            images, labels = images[: limit - samples], labels[: limit - samples]
        if not len(labels):
            continue
        if not labels.is_floating_point():
            labels = labels.long()  # here any integers do
        with explained_pass(model, images):
            outputs = run_on(model, images).float()
        classes = outputs.shape[-1]
        if step == 0:
            check_test(outputs, images, labels, 1)
            confusion = torch.zeros(classes, classes, dtype=torch.int64)
        known = labels != IGNORED
        if (outside := known & ((labels < 0) | (labels >= classes))).any():
            raise ValueError(
                f"batch {step + 1} of the test has {int(outside.sum())} label(s) that are none of "
                f"the network's classes, 0 to {classes - 1}; number the classes from 0, or build "
                "the network for more"
            )
        losses += F.cross_entropy(outputs, labels, reduction="sum").item()
        probabilities, guesses = outputs.softmax(1).max(1)
        pairs = (labels * classes + guesses)[known].cpu()
        confusion += pairs.bincount(minlength=classes**2).reshape(classes, classes)
        if worst and isinstance(images, Tensor):
            for place in ((guesses != labels) & known).nonzero().flatten().tolist():
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
    return ByClass(losses / samples, samples, confusion, [mistake for _, _, mistake in ordered])


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
