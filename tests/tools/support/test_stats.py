"""Intervals and noise floors."""

import numpy as np
import pytest
from scipy import stats

from tools.support.stats import bootstrap_interval, half_width, noise_floor


def test_a_bootstrap_interval_is_that_of_resampled_means():
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    draws = np.random.default_rng(0).choice(values, (10_000, 5)).mean(axis=1)
    assert bootstrap_interval(values) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])))
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(np.array([3.0])) == (3.0, 3.0)
    assert bootstrap_interval(np.array([3.0, 3.0])) == (3.0, 3.0)


def test_half_a_width_agrees_with_scipys_paired_test():
    ours, theirs = [1.0, 2.5, 3.0, 4.0], [0.5, 2.0, 3.5, 1.0]
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    differences = [a - b for a, b in zip(ours, theirs)]
    assert half_width(differences) == pytest.approx((high - low) / 2)


def test_noise_floor_by_hand():
    # What a seed does to all plans alike is no noise.
    assert noise_floor(np.array([[0.5, 0.6], [0.7, 0.8], [0.9, 1.0]])) == pytest.approx(0, abs=1e-9)
    # Residuals are +-0.05, so their variance is 4 * 0.0025 / 1 and that of a mean of two half.
    assert noise_floor(np.array([[0.5, 0.6], [0.7, 0.6]])) == pytest.approx(
        2 * (2 * 0.01 / 2) ** 0.5
    )
