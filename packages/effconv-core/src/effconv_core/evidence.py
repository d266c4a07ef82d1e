"""What is known of a found plan against the network's own sizes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy

Verdict = Literal["better", "no difference shown", "worse"]

LEVEL = 0.9  # of the intervals of the loss and of the accuracy, which have to agree
LEVEL_OF_LOSS_ALONE = 0.98  # of that of the loss in tasks without an accuracy
MARGIN = 0.02  # relative difference in loss that a short training must show
ROUNDING = 1e-6  # of an accuracy in float32


@dataclass(frozen=True)
class Evidence:
    """Comparison of the plan found with the original sizes by short trainings.

    Both networks are trained from the same seeds on the same batches, in pairs. Differences are
    found minus original, so a negative one in loss is a gain, and a positive one in accuracy.

    Attributes:
        verdict: what the differences show, see `verdict_of`.
        kept: which of the two the plan is.
        found: layer name to size, of the best plan found.
        loss: mean difference in loss; None if a loss was not finite.
        loss_interval: its interval of confidence (Student's t over the pairs), or None.
        original_loss: mean loss of the original sizes, or None.
        accuracy: mean difference in accuracy, from -1 to 1; None if the task has none.
        accuracy_interval: its interval of confidence, or None.
        pairs: number of pairs of trainings; 0 if the data were too few to hold any out.
        steps: steps of each training.
        plans: number of plans that were trained to find the best, the original sizes among them; 1,
            and no pairs, if only these are within the budget.
        agreement: Spearman's correlation, over these plans, of the loss on the search's own
            kernels with that of training them once; None if they are too few.
        level: of the interval of the loss; version 0.5.0 did not write it.
        accuracy_level: of that of the accuracy; None is the same level, as before version 0.7.0.
        learned: whether the outputs of one of the two networks are better on the data held out than
            the mean of its outputs is; if neither's are, nothing that holds for other data was
            learned, and no difference can be shown.
        spent: training steps that each part of the search took, a forward pass counted as a third.
    """

    verdict: Verdict
    kept: Literal["found", "original"]
    found: dict[str, int | tuple[int, ...]]
    loss: float | None
    loss_interval: tuple[float, float] | None
    original_loss: float | None
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    pairs: int
    steps: int = 0
    plans: int = 0
    agreement: float | None = None
    level: float = 0.9
    learned: bool = True
    spent: dict[str, int] = field(default_factory=dict)
    accuracy_level: float | None = None


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of confidence of the mean of at least two values, by Student's t.

    At a level of 0.9 one mean in twenty lies above it by chance, and one below.

    Args:
        values: at least two.
        level: share of such intervals that hold the mean, 0 to 1.
    """
    n = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    reach = float(scipy.stats.t.ppf((1 + level) / 2, n - 1)) * error
    mean = float(np.mean(values))
    return mean - reach, mean + reach


def verdict_of(
    losses: Sequence[float],
    original_loss: float,
    accuracies: Sequence[float] | None = None,
    *,
    accuracy_level: float = LEVEL,
) -> Verdict:
    """Return what paired differences, found minus original, show.

    `better` needs all of these: the whole interval of the mean difference in loss lies below zero,
    the mean is below zero by at least 2 % of the original's loss, and the whole interval of the
    difference in accuracy lies above zero. `worse` is the same on the other side. The margin is
    there because small differences of short trainings often turn round in long ones, and the
    accuracy because it often has another sign where a difference in loss is one of chance.

    Args:
        losses: differences in loss, at least two.
        original_loss: mean loss of the original sizes.
        accuracies: differences in accuracy, 0 to 1; None if the task has none. The interval of the
            loss is of 90 %, without accuracies of 98 %.
        accuracy_level: of the interval of the accuracy.
    """
    mean, (low, high) = float(np.mean(losses)), interval(losses, level_of_loss(accuracies))
    margin = MARGIN * abs(original_loss)
    lowest, highest = 2 * ROUNDING, -2 * ROUNDING  # agrees with both
    if accuracies is not None:
        lowest, highest = interval(accuracies, accuracy_level)
    if high < 0 and mean <= -margin and lowest > ROUNDING:
        return "better"
    if low > 0 and mean >= margin and highest < -ROUNDING:
        return "worse"
    return "no difference shown"


def level_of_loss(accuracies: Sequence[float] | None) -> float:
    """Return the level of the interval of the loss, for differences in accuracy or None."""
    return LEVEL_OF_LOSS_ALONE if accuracies is None else LEVEL


def sentences(evidence: Evidence) -> list[str]:
    """Return what the evidence says, the verdict first."""
    kept = {
        ("better", "found"): "The found sizes are better than the original ones.",
        ("worse", "found"): "The found sizes are worse than the original ones.",
        ("worse", "original"): "The found sizes are worse than the original ones, which stay.",
    }
    no_difference = "No difference between the found sizes and the original ones was shown"
    stay = ", so the original ones stay." if evidence.kept == "original" else "."
    said = [kept.get((evidence.verdict, evidence.kept), no_difference + stay)]
    if not evidence.pairs and evidence.plans:
        return [*said, "No other plan is within the budget."]
    if not evidence.pairs:
        return [
            *said,
            "An epoch has too few batches to hold any out, so nothing was compared: pass a smaller "
            "batch size or more data.",
        ]
    rests = f"{evidence.pairs} pairs of trainings of {evidence.steps} steps"
    if evidence.loss is not None and evidence.loss_interval is not None:
        low, high = evidence.loss_interval
        text = (
            f"Found minus original, in {rests}: loss {evidence.loss:+.3f} "
            f"[{low:+.3f}, {high:+.3f}] on data held out, of {evidence.original_loss:.3f}"
        )
        if evidence.accuracy is not None and evidence.accuracy_interval is not None:
            low, high = (100 * end for end in evidence.accuracy_interval)
            text += f"; accuracy {100 * evidence.accuracy:+.1f} points [{low:+.1f}, {high:+.1f}]"
        levels = f"{100 * evidence.level:.0f} % intervals"
        if evidence.accuracy_level not in (None, evidence.level):
            levels += f", of the accuracy {100 * evidence.accuracy_level:.0f} %"
        said.append(f"{text}. Brackets are {levels}; long trainings may differ.")
    else:
        said.append(f"In {rests} a loss was not finite.")
    if not evidence.learned:
        said.append(
            "On the data held out neither network does better than the mean of its outputs: in "
            f"{evidence.steps} steps nothing was learned that could differ."
        )
    steps = sum(evidence.spent.values())
    parts = ", ".join(f"{name} {count:,}" for name, count in evidence.spent.items())
    # Before 0.9.0 the original sizes were among them only if they were within the budget.
    among = "" if "pairs" in evidence.spent else ", the original sizes among them,"
    said.append(
        f"The search took {steps:,} training steps ({parts}), and trained {evidence.plans} plans"
        f"{among} to find the best."
    )
    if evidence.agreement is not None:
        said.append(
            "The loss on the search's own kernels ranked them with a correlation of "
            f"{evidence.agreement:+.2f} to training them (1 is perfect, 0 is chance)."
        )
    return said
