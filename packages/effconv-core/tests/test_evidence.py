"""Verdicts from paired differences, and their sentences."""

import pytest
from effconv_core.evidence import Evidence, interval, sentences, verdict_of
from hypothesis import given
from hypothesis import strategies as st


def test_an_interval_is_students_by_hand():
    # Mean 2, standard deviation 1 of three values, and the t quantile of two degrees of freedom.
    low, high = interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([-0.2, -0.21, -0.19, -0.2], "better"),
        ([0.2, 0.21, 0.19, 0.2], "worse"),
        ([-0.4, 0.1, -0.3, 0.2], "no difference shown"),  # the interval holds zero
        ([-0.011, -0.01, -0.012, -0.011], "no difference shown"),  # certain, but within the margin
        ([0.0, 0.0, 0.0, 0.0], "no difference shown"),
    ],
)
def test_a_verdict_needs_certainty_and_size(differences, verdict):
    assert verdict_of(differences, 1.0) == verdict


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.floats(0.1, 5))
def test_a_verdict_turns_round_with_the_signs(differences, original):
    opposite = {"better": "worse", "worse": "better", "no difference shown": "no difference shown"}
    assert (
        verdict_of([-d for d in differences], original)
        == opposite[verdict_of(differences, original)]
    )


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


@pytest.mark.parametrize(("changes", "level"), [({}, "90 %"), ({"level": 0.95}, "95 %")])
def test_intervals_are_named_by_their_own_level(changes, level):
    assert level in " ".join(sentences(evidence(**changes)))


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
