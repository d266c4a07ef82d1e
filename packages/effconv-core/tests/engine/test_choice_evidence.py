"""The evidence that is made of the results of a choice."""

import dataclasses
import json

import pytest
from effconv_core.engine.choice import evidence_of
from effconv_core.engine.race import Result
from effconv_core.evidence import interval


def test_evidence_of_a_loss_that_is_not_finite():
    fine, broken = Result(1.0, 0.5), Result(float("inf"), 0.5)
    known = {"found": {"a": 3}, "keeps": True}
    worse = evidence_of([[broken, fine], [fine, fine]], **known)
    assert (worse.verdict, worse.kept, worse.loss) == ("worse", "original", None)
    better = evidence_of([[fine, broken], [fine, broken]], **known)
    assert (better.verdict, better.kept) == ("better", "found")
    json.dumps(dataclasses.asdict(better), allow_nan=False)


@pytest.mark.parametrize("accuracy", [0.6, 0.7, 0.7 + 1e-8])
def test_a_lower_loss_without_higher_accuracy_is_not_better(accuracy):
    rows = [[Result(0.5 + i / 1000, accuracy), Result(1.0, 0.7)] for i in range(4)]
    assert evidence_of(rows, found={"a": 3}, keeps=True).verdict == "no difference shown"
    rows = [[Result(0.5 + i / 1000, None), Result(1.0, None)] for i in range(4)]
    assert evidence_of(rows, found={"a": 3}, keeps=True).verdict == "better"


def test_each_interval_is_of_the_level_that_is_written():
    pairs = [(0.5, 0.9), (0.6, 0.8), (0.55, 0.9), (0.4, 0.7)]
    for with_accuracy in (True, False):
        own = Result(1.0, 0.5 if with_accuracy else None)
        rows = [[Result(loss, hits if with_accuracy else None), own] for loss, hits in pairs]
        evidence = evidence_of(rows, found={"a": 3}, keeps=True)
        losses, accuracies = [loss - 1 for loss, _ in pairs], [hits - 0.5 for _, hits in pairs]
        assert evidence.level == (0.9 if with_accuracy else 0.98)
        assert evidence.loss_interval == interval(losses, evidence.level)
        assert evidence.accuracy_level == (0.9 if with_accuracy else None)
        if with_accuracy:
            assert evidence.accuracy_interval == interval(accuracies, 0.9)


@pytest.mark.parametrize("accuracy", [0.7, 0.6, 0.6 - 1e-8])
def test_a_higher_loss_without_lower_accuracy_is_not_worse(accuracy):
    rows = [[Result(1.0 + i / 1000, accuracy), Result(0.5, 0.6)] for i in range(4)]
    assert evidence_of(rows, found={"a": 3}, keeps=False).verdict == "no difference shown"
    rows = [[Result(1.0 + i / 1000, 0.5), Result(0.5, 0.6)] for i in range(4)]
    assert evidence_of(rows, found={"a": 3}, keeps=False).verdict == "worse"


@pytest.mark.parametrize(
    ("constant", "learned", "verdict"),
    [
        (0.4, False, "no difference shown"),  # both are beaten by their own mean output
        (0.7, True, "better"),  # the better one learned
        (None, True, "better"),  # of outputs that have no mean
    ],
)
def test_where_nothing_was_learned_no_difference_is_shown(constant, learned, verdict):
    rows = [[Result(0.5 + i / 1000, 0.7, constant), Result(1.0, 0.6, constant)] for i in range(4)]
    evidence = evidence_of(rows, found={"a": 3}, keeps=True)
    assert (evidence.learned, evidence.verdict) == (learned, verdict)
    assert evidence.kept == ("found" if verdict == "better" else "original")
