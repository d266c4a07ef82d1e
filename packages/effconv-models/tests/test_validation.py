"""Integers of at least 1, of whatever library they come from."""

import numpy as np
import pytest
import torch
from effconv_models._validation import check_positive


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.array(3), torch.tensor(3), 10**30])
def test_an_integer_of_any_kind_becomes_pythons(value):
    found = check_positive("width", value)
    assert type(found) is int
    assert found == value


@pytest.mark.parametrize(
    "value",
    [
        True,
        np.bool_(True),
        torch.tensor(True),
        3.0,
        np.float32(3),
        torch.tensor(3.0),
        torch.tensor([3, 3]),
        "3",
        None,
        [3],
    ],
)
def test_anything_else_is_refused_by_name(value):
    with pytest.raises(TypeError, match="^width "):
        check_positive("width", value)


@pytest.mark.parametrize("value", [0, -1, np.int64(0), torch.tensor(-5)])
def test_an_integer_below_1_is_refused_by_name(value):
    with pytest.raises(ValueError, match=f"^width is {int(value)}"):
        check_positive("width", value)
