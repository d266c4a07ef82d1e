"""Verdicts on the pairs of earlier rows."""

import pytest
from effconv_core.evidence import interval, verdict_of
from hypothesis import assume, given
from hypothesis import strategies as st

from tools.support.verdicts import values_like, verdict_now

DIFFERENCES = st.lists(st.floats(-1, 1), min_size=4, max_size=4)
LEVELS = st.sampled_from([0.8, 0.9, 0.95])


@given(DIFFERENCES, LEVELS)
def test_values_have_the_mean_and_the_interval(values, level):
    mean = sum(values) / len(values)
    found = values_like(mean, interval(values, level), len(values), level)
    assert sum(found) / len(found) == pytest.approx(mean, abs=1e-9)
    assert interval(found, 0.7) == pytest.approx(interval(values, 0.7), abs=1e-9)


@given(DIFFERENCES, DIFFERENCES, LEVELS, LEVELS)
def test_a_rows_verdict_is_that_of_its_pairs_whatever_its_levels(losses, accuracies, level, other):
    row = {"verdict": "worse", "pairs": 4, "original_loss": 1.0, "level": level}
    row |= {"loss": sum(losses) / 4, "loss_interval": interval(losses, level)}
    row |= {"accuracy": sum(accuracies) / 4, "accuracy_interval": interval(accuracies, other)}
    row["accuracy_level"] = other
    for values in (losses, accuracies):
        low, high = interval(values, 0.9)
        assume(min(abs(low), abs(high)) > 1e-5)  # where rounding does not decide
        low, high = interval(values, 0.8)
        assume(min(abs(low), abs(high)) > 1e-5)
    assume(abs(abs(row["loss"]) - 0.02) > 1e-6)
    rule = 0.9 if other == 0.9 else 0.8  # pairs of before 0.9.0 were trained after the choice
    assert verdict_now(row) == verdict_of(losses, 1.0, accuracies, accuracy_level=rule)
    assert verdict_now(row | {"learned": False}) == "no difference shown"


def test_a_row_without_an_interval_has_its_own_verdict():
    assert verdict_now({"verdict": "worse", "loss": None, "loss_interval": None}) == "worse"


def test_a_row_of_before_has_the_rule_for_pairs_that_were_trained_after_the_choice():
    accuracies = [0.05, 0.02, 0.01, 0.0]  # a mean of 1.85 standard errors
    row = {"verdict": "worse", "pairs": 4, "original_loss": 1.0, "level": 0.9}
    row |= {"loss": -0.2, "loss_interval": [-0.3, -0.1], "accuracy": 0.02}
    for level, verdict in ((0.8, "better"), (0.9, "no difference shown")):
        known = {"accuracy_level": level, "accuracy_interval": interval(accuracies, level)}
        assert verdict_now(row | known) == verdict


def test_a_row_of_one_level_has_it_for_both_intervals():
    # Standard error of the accuracy 0.01 / 3.182 at 95 %, so that its mean is 2.2 of them; were the
    # level 80 % it would be 1.1, and no difference.
    row = {"verdict": "no difference shown", "pairs": 4, "original_loss": 1.0, "level": 0.95}
    row |= {"loss": -0.2, "loss_interval": [-0.3, -0.1]}
    row |= {"accuracy": 0.007, "accuracy_interval": [-0.003, 0.017]}
    assert verdict_now(row) == "better"
    assert verdict_now(row | {"accuracy_level": 0.8}) == "no difference shown"
