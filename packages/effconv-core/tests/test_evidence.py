"""Verdicts from paired differences, and their sentences."""

import re

import pytest
from effconv_core.evidence import Evidence, interval, sentences, verdict_of
from hypothesis import given
from hypothesis import strategies as st


def test_an_interval_is_students_by_hand():
    # Mean 2, standard deviation 1 of three values, and t quantiles of two degrees of freedom.
    for level, quantile in ((0.95, 4.302653), (0.9, 2.919986), (0.8, 1.885618)):
        low, high = interval([1.0, 2.0, 3.0], level)
        half = quantile / 3**0.5
        assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-5)


BETTER, SURE = "better", [0.02, 0.03, 0.02, 0.03]
NONE = "no difference shown"


@pytest.mark.parametrize(
    ("losses", "accuracies", "verdict"),
    [
        ([-0.2, -0.21, -0.19, -0.2], SURE, BETTER),
        ([-0.2, -0.21, -0.19, -0.2], None, BETTER),
        ([-0.4, 0.1, -0.3, 0.2], SURE, NONE),  # the interval of the loss holds zero
        ([-0.011, -0.01, -0.012, -0.011], SURE, NONE),  # certain, but within the margin
        ([0.0, 0.0, 0.0, 0.0], SURE, NONE),
        # Means of 2.45, 3.67 and 4.90 standard errors: the quantile of three degrees of freedom is
        # 2.353 at 90 % and 4.541 at 98 %, so that the first two suffice beside an accuracy only.
        ([-0.2, -0.1, -0.1, 0.0], SURE, BETTER),
        ([-0.2, -0.1, -0.1, 0.0], None, NONE),
        ([-0.25, -0.15, -0.15, -0.05], SURE, BETTER),
        ([-0.25, -0.15, -0.15, -0.05], None, NONE),
        ([-0.3, -0.2, -0.2, -0.1], None, BETTER),
        # Means of 2.45 and 1.85 standard errors.
        ([-0.2, -0.21, -0.19, -0.2], [0.02, 0.01, 0.01, 0.0], BETTER),
        ([-0.2, -0.21, -0.19, -0.2], [0.05, 0.02, 0.01, 0.0], NONE),
        ([-0.2, -0.21, -0.19, -0.2], [-0.02, -0.03, -0.02, -0.03], NONE),
        ([-0.2, -0.21, -0.19, -0.2], [4e-9, 4e-9, 4e-9, 4e-9], NONE),  # that is rounding
    ],
)
def test_a_verdict_needs_certainty_size_and_accuracy(losses, accuracies, verdict):
    assert verdict_of(losses, 1.0, accuracies) == verdict


DIFFERENCES = st.lists(st.floats(-1, 1), min_size=4, max_size=4)


@given(DIFFERENCES, st.floats(0.1, 5), st.none() | DIFFERENCES)
def test_a_verdict_turns_round_with_the_signs(losses, original, accuracies):
    opposite = {"better": "worse", "worse": "better", NONE: NONE}
    turned = None if accuracies is None else [-a for a in accuracies]
    said = verdict_of(losses, original, accuracies)
    assert verdict_of([-d for d in losses], original, turned) == opposite[said]


@given(DIFFERENCES, DIFFERENCES)
def test_what_is_said_without_an_accuracy_needs_the_more_certain_loss(losses, accuracies):
    if verdict_of(losses, 1.0) != NONE:
        agreeing = [-1.0 if sum(losses) > 0 else 1.0] * 4
        assert verdict_of(losses, 1.0, agreeing) == verdict_of(losses, 1.0)
    if verdict_of(losses, 1.0, accuracies) == BETTER:
        assert sum(accuracies) > 0 > sum(losses)


def evidence(**changes) -> Evidence:
    values = {
        "verdict": "better",
        "kept": "found",
        "found": {"a": 5},
        "loss": -0.25,
        "loss_interval": (-0.3, -0.2),
        "original_loss": 1.5,
        "accuracy": 0.04,
        "accuracy_interval": (0.03, 0.05),
        "pairs": 4,
        "steps": 192,
        "plans": 15,
        "agreement": 0.5,
        "spent": {"kernels": 300, "pairs": 1536},
    }
    return Evidence(**values | changes)


def test_sentences_hold_the_numbers():
    text = " ".join(sentences(evidence()))
    for number in ("-0.250", "-0.300", "1.500", "+4.0", "192", "1,836", "15", "+0.50"):
        assert number in text


@pytest.mark.parametrize(
    ("changes", "levels"),
    [
        ({}, ["90 %"]),
        ({"level": 0.95}, ["95 %"]),
        ({"accuracy_level": 0.8}, ["90 %", "80 %"]),
        ({"level": 0.95, "accuracy_level": 0.95}, ["95 %"]),
    ],
)
def test_intervals_are_named_by_their_own_levels(changes, levels):
    assert re.findall(r"\d+ %", " ".join(sentences(evidence(**changes)))) == levels


@pytest.mark.parametrize(
    "changes",
    [
        {"pairs": 0, "plans": 0, "loss": None, "loss_interval": None, "verdict": "worse"},
        {"pairs": 0, "plans": 1, "verdict": "no difference shown", "kept": "original"},
        {"loss": None, "loss_interval": None, "original_loss": None},
        {"accuracy": None, "accuracy_interval": None, "agreement": None},
    ],
)
def test_sentences_say_nothing_of_what_is_not_known(changes):
    assert "None" not in " ".join(sentences(evidence(**changes)))
