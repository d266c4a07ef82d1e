"""Errors of shards and samples come through workers as they are."""

import copy
import pickle

import pytest
from effconv_data.shards.problems import Problem, ShardError, unreadable, unusable

PROBLEM = Problem("a.tar", "k", "sample k of shard a.tar is red; paint it")


@pytest.mark.parametrize("through", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_an_error_is_its_problem(through):
    error = through(ShardError(PROBLEM))
    assert isinstance(error, ValueError)
    assert error.problem == PROBLEM
    assert str(error) == PROBLEM.sentence


def test_what_others_put_into_its_arguments_does_not_travel():
    error = ShardError(PROBLEM)
    error.args = ("something else", object)
    assert pickle.loads(pickle.dumps(error)).problem == PROBLEM


@pytest.mark.parametrize("problem", ["text", None, ("a.tar", "k", "sentence")])
def test_a_text_is_no_problem(problem):
    with pytest.raises(TypeError, match="Problem"):
        ShardError(problem)


def test_shard_and_key_are_in_problem_and_sentence():
    assert unreadable("a.tar", "is gone").problem == Problem("a.tar", None, "shard a.tar is gone")
    error = unusable("a.tar", "k", "is red")
    assert (error.problem.shard, error.problem.key) == ("a.tar", "k")
    assert "a.tar" in str(error)
    assert "k" in str(error).split()
