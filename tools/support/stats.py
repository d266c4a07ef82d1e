"""Intervals of means, and the least difference that counts."""

import statistics
from collections.abc import Sequence

import numpy as np
import scipy


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of values `(N,)`; the draws are the same."""
    if len(values) == 1:  # which scipy refuses
        return float(values[0]), float(values[0])
    found = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def half_width(differences: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of a mean of differences (Student's t)."""
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return float(scipy.stats.t.ppf(0.975, len(differences) - 1)) * error


def noise_floor(accuracies: np.ndarray) -> float:
    """Return the smallest difference of two plans' means that counts, at two standard errors.

    Seeds are shared by all plans, so the effect of a seed on all of them alike is not noise.

    Args:
        accuracies: one row a plan, one column a seed, `(P, S)`.
    """
    rest = accuracies - accuracies.mean(axis=0) - accuracies.mean(axis=1, keepdims=True)
    rest += accuracies.mean()
    P, S = accuracies.shape
    variance = (rest**2).sum() / ((P - 1) * (S - 1))
    return 2 * float(np.sqrt(2 * variance / S))
