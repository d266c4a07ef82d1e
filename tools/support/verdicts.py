"""The verdict of the present rule on pairs that a row of an earlier version has."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy
from effconv_core.evidence import LEVEL, verdict_of

APART = 0.8
"""Level of the interval of the accuracy in versions 0.7.0 to 0.8.1, whose pairs were trained after
the plan was chosen."""


def verdict_now(evidence: Mapping[str, Any]) -> str:
    """Return the verdict that pairs of trainings get by the rule for such pairs.

    That is the present one, and for rows of versions before 0.9.0 that of 0.8.1. Student's t needs
    only the mean of the differences and their deviation, which the mean and the interval of a row
    give. Without an accuracy the level of the loss is the present one for all rows.

    Args:
        evidence: of a row, the fields of `effconv_core.evidence.Evidence`. If it has no interval of
            the loss, its own verdict is returned.
    """
    if evidence.get("loss_interval") is None:
        return evidence["verdict"]
    if not evidence.get("learned", True):
        return "no difference shown"
    pairs, level = evidence["pairs"], evidence.get("level", 0.9)
    losses = values_like(evidence["loss"], evidence["loss_interval"], pairs, level)
    accuracies, rule = None, LEVEL
    if evidence["accuracy"] is not None:
        level = evidence.get("accuracy_level") or level
        interval = evidence["accuracy_interval"]
        accuracies = values_like(evidence["accuracy"], interval, pairs, level)
        rule = LEVEL if evidence.get("accuracy_level") == LEVEL else APART
    return verdict_of(losses, evidence["original_loss"], accuracies, accuracy_level=rule)


def values_like(mean: float, interval: Sequence[float], count: int, level: float) -> list[float]:
    """Return values of a mean whose interval, by Student's t at a level, is the one given."""
    low, high = interval
    quantile = float(scipy.stats.t.ppf((1 + level) / 2, count - 1))
    deviation = (high - low) / 2 / quantile * count**0.5
    places = np.linspace(-1, 1, count)
    return (mean + deviation * places / places.std(ddof=1)).tolist()
