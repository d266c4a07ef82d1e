"""The integers of an assembly: taps, channels and the soft sizes that rule an axis."""

import numpy as np
import pytest
import torch
from effconv_kernels.shapes import axes_of, channels_of, plan_of, shapes_of, taps_of

CHANNELS = [(4, 3), (2, 5)]


def test_a_plan_holds_what_follows_from_sizes_and_channels():
    plan = plan_of("op", [3, (1, 2)], CHANNELS, None, 2)
    assert (plan.outer, plan.inner, plan.counts) == ([4, 2], [3, 5], [12, 10])
    assert plan.shapes == [(3, 3), (1, 2)]
    assert (plan.values, plan.taps) == ([108, 20], 11)
    assert plan.flat == [1, 3, 3, 1, 1, 2]
    assert plan.rules == [-1, 0, 0, -1, 1, 1]


def test_equal_arguments_give_one_plan_and_other_kinds_are_checked_anew():
    assert plan_of("op", [3, 2], CHANNELS, None, 2) is plan_of("op", [3, 2], CHANNELS, None, 2)
    assert plan_of("op", [3, 2], CHANNELS, None, None).rules == [-1] * 6
    for sizes in ([3.0, 2], [3, True]):
        with pytest.raises(TypeError, match=r"sizes\["):
            plan_of("op", sizes, CHANNELS, None, 2)
    tensor = plan_of("op", torch.tensor([3, 2]), CHANNELS, None, 2)
    assert tensor == plan_of("op", [3, 2], CHANNELS, None, 2)


def test_many_plans_do_not_stay_in_memory():
    from effconv_kernels import shapes

    for size in range(1, 250):
        plan_of("op", [size, 1], CHANNELS, None, None)
        plan_of("op", [1, size], CHANNELS, None, None)
    assert len(shapes._plans) <= 256


@pytest.mark.parametrize("sizes", [[3, (1, 2, 4)], iter([3, [1, 2, 4]]), (np.int64(3), (1, 2, 4))])
def test_sizes_are_numbers_or_taps_along_each_axis(sizes):
    assert shapes_of("op", sizes, 2) == [(3, 3), (1, 2, 4)]


@pytest.mark.parametrize(
    ("sizes", "kind", "named"),
    [
        ([3], ValueError, "1 .* 2"),
        ([3, 257], ValueError, "257"),
        ([3, (256, 257)], ValueError, r"\(256, 257\)"),
        ([3, ()], ValueError, r"sizes\[1\]"),
        ([3, (1, 1, 1, 1)], ValueError, r"sizes\[1\]"),
        ([3, "33"], ValueError, "'33'"),
        ([3, (2, 0)], ValueError, r"sizes\[1\]\[1\] is 0"),
        ([3, (2, 1.5)], TypeError, "1.5"),
        (None, TypeError, "NoneType"),
    ],
)
def test_other_sizes_are_refused(sizes, kind, named):
    with pytest.raises(kind, match=named):
        shapes_of("op", sizes, 2)


def test_channels_are_pairs():
    assert channels_of("op", iter(CHANNELS)) == ([4, 2], [3, 5])


@pytest.mark.parametrize(
    ("channels", "kind", "named"),
    [
        (7, TypeError, "int"),
        ([], ValueError, "empty"),
        ([(4, 3), (2,)], ValueError, r"channels\[1\]"),
        ([(4, 3), 5], ValueError, r"channels\[1\]"),
        ([(4, 3), (0, 5)], ValueError, r"\(out\)\[1\] is 0"),
        ([(4, 3), (2, -1)], ValueError, r"\(in\)\[1\] is -1"),
    ],
)
def test_other_channels_are_refused(channels, kind, named):
    with pytest.raises(kind, match=named):
        channels_of("op", channels)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (None, [-1, 0, 0, -1, -1, 1]),
        ([(2, None), (0,)], [-1, 2, -1, -1, -1, 0]),
    ],
)
def test_axes_name_a_soft_size_or_none(axes, expected):
    assert axes_of("op", axes, [(3, 3), (5,)], 3) == expected


@pytest.mark.parametrize(
    ("axes", "count", "named"),
    [
        ([(0, 0)], 3, "1 .* 2"),
        ([(0, 0), (0, 0)], 3, r"axes\[1\]"),
        ([(0, 3), (0,)], 3, r"axes\[0\]"),
        ([(0, -1), (0,)], 3, r"axes\[0\]"),
        ([(0, True), (0,)], 3, r"axes\[0\]"),
        ([(0, 0), (0,)], None, "soft_sizes is None"),
    ],
)
def test_axes_that_do_not_fit_are_refused(axes, count, named):
    with pytest.raises(ValueError, match=named):
        axes_of("op", axes, [(3, 3), (5,)], count)


def test_channels_of_another_number_of_layers_are_refused():
    with pytest.raises(ValueError, match="channels .* 2 .* 1"):
        plan_of("op", [3], CHANNELS, None, 1)


def test_taps_are_products_of_three():
    assert taps_of([1, 3, 3, 2, 1, 5]) == [9, 10]
    assert taps_of([]) == []
