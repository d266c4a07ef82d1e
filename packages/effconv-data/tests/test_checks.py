"""Integers, and nothing that merely looks like one."""

import numpy as np
import pytest
from effconv_data._checks import check_integer


@pytest.mark.parametrize("value", [3, 4, 10**30])
def test_integers_from_the_least_on_pass(value):
    check_integer("size", value, 3)


@pytest.mark.parametrize("value", [2, -(10**30)])
def test_smaller_ones_are_refused_by_name(value):
    with pytest.raises(ValueError, match=rf"size is {value}.* 3"):
        check_integer("size", value, 3)


@pytest.mark.parametrize("value", [True, 3.0, "3", None, np.float64(3), [3]])
def test_other_kinds_are_refused_by_name(value):
    with pytest.raises(TypeError, match="size is "):
        check_integer("size", value, 0)
