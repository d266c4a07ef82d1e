"""What a plan may hold."""

from types import SimpleNamespace

import pytest
from effconv_core.io.plan_checks import check_allowed, check_numbers, check_sizes
from effconv_core.io.schemas import LARGEST_NUMBER, LARGEST_SIZE, LONGEST_NAME, MOST_LAYERS


@pytest.mark.parametrize(
    "sizes", [{"a": 1}, {"a": LARGEST_SIZE, "b": (1, 2, LARGEST_SIZE)}, {"x" * LONGEST_NAME: 3}]
)
def test_sizes_at_their_limits_are_taken(sizes):
    check_sizes(sizes)


@pytest.mark.parametrize(
    ("sizes", "kind", "named"),
    [
        ({}, ValueError, "layer"),
        (dict.fromkeys(map(str, range(MOST_LAYERS + 1)), 3), ValueError, "10,001"),
        ({3: 3}, TypeError, "3"),
        ({"a\udce4": 3}, ValueError, "half of a character"),
        ({"x" * (LONGEST_NAME + 1): 3}, ValueError, "501"),
        ({"a": 0}, ValueError, "'a' is 0"),
        ({"a": LARGEST_SIZE + 1}, ValueError, "1001"),
        ({"a": True}, TypeError, "True"),
        ({"a": 3.0}, TypeError, "3.0"),
        ({"a": "3"}, TypeError, "'3'"),
        ({"a": ()}, TypeError, "'a'"),
        ({"a": (3, 3, 3, 3)}, TypeError, "'a'"),
        ({"a": [3, 3]}, TypeError, "'a'"),
        ({"a": (3, 0)}, ValueError, "'a'"),
    ],
)
def test_other_sizes_are_refused_with_the_layer(sizes, kind, named):
    with pytest.raises(kind) as raised:
        check_sizes(sizes)
    assert named in str(raised.value)
    assert len(str(raised.value)) < 1000


def numbers(soft=2.5, cost=None, budget=None):
    return SimpleNamespace(soft_sizes={"a": soft}, cost=cost, budget=budget)


def test_numbers_at_their_limits_are_taken():
    check_numbers(numbers((0, 1.5, float(LARGEST_SIZE)), LARGEST_NUMBER, 0.0))


@pytest.mark.parametrize(
    ("plan", "kind", "named"),
    [
        (numbers(soft=-0.1), ValueError, "'a'"),
        (numbers(soft=(3, LARGEST_SIZE + 0.5)), ValueError, "1000.5"),
        (numbers(soft=float("nan")), ValueError, "nan"),
        (numbers(soft="3"), TypeError, "'3'"),
        (numbers(soft=True), TypeError, "True"),
        (numbers(cost=-1), ValueError, "cost"),
        (numbers(cost=2 * LARGEST_NUMBER), ValueError, "cost"),
        (numbers(budget=float("inf")), ValueError, "budget"),
        (numbers(budget=[1]), TypeError, "budget"),
    ],
)
def test_other_numbers_are_refused_with_their_place(plan, kind, named):
    with pytest.raises(kind) as raised:
        check_numbers(plan)
    assert named in str(raised.value)


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (1, LARGEST_SIZE, LARGEST_SIZE), (LARGEST_SIZE, LARGEST_SIZE, 2)]
)
def test_allowed_sizes_rise_by_a_step(sizes):
    check_allowed({"a": sizes})


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [
        ((0, 3, 1), ValueError),
        ((5, 3, 1), ValueError),
        ((1, LARGEST_SIZE + 1, 1), ValueError),
        ((1, 3, 0), ValueError),
        ((1, 3, LARGEST_SIZE + 1), ValueError),
        ((1, 3), TypeError),
        ([1, 3, 1], TypeError),
        ((1, 3, True), TypeError),
        ((1.0, 3, 1), TypeError),
    ],
)
def test_other_allowed_sizes_are_refused_with_the_layer(sizes, kind):
    with pytest.raises(kind, match="'the layer'"):
        check_allowed({"the layer": sizes})
