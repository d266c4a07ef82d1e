"""Which kernel a size stands for, and the padding that keeps the output size."""

import pytest
from effconv_core.layers.geometry import centred, kernel_shape_of, padding_for
from torch import nn

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@pytest.mark.parametrize(
    ("original", "size", "expected"),
    [
        ((3, 3), 5, (5, 5)),
        ((1, 7), 5, (1, 5)),
        ((1, 1), 5, (5, 5)),
        ((3, 1, 1), 4, (4, 1, 1)),
        ((1, 7), (3, 2), (3, 2)),
        ((5,), 2, (2,)),
    ],
)
def test_the_kernel_that_a_plans_size_stands_for(original, size, expected):
    assert kernel_shape_of(CONVS[len(original)](1, 1, original), size) == expected


def test_a_size_with_the_wrong_number_of_axes_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 3, 3\) .* 2 "):
        kernel_shape_of(nn.Conv2d(1, 1, 3), (3, 3, 3))


@pytest.mark.parametrize("size", range(1, 8))
def test_padding_of_a_same_convolution(size):
    before, after = (size - 1) // 2, size // 2
    for padding in (1, "same"):
        conv = nn.Conv2d(1, 1, 3, padding=padding)
        assert padding_for(conv, (size, size)) == (before, after, before, after)


@pytest.mark.parametrize(
    ("conv", "shape", "expected"),
    [
        (nn.Conv2d(1, 1, 3, padding=1), (5, 5), (2, 2, 2, 2)),
        (nn.Conv2d(1, 1, 3, padding=1), (2, 4), (1, 2, 0, 1)),
        (nn.Conv2d(1, 1, 3, padding=(0, 1)), (5, 3), (1, 1, 1, 1)),
        (nn.Conv2d(1, 1, 5, padding="valid"), (3, 3), (-1, -1, -1, -1)),
        (nn.Conv1d(1, 1, 3, padding=2, dilation=2), (5,), (4, 4)),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), (1, 1), (0, 0, 0, 0)),
        (nn.Conv3d(1, 1, (1, 3, 3), padding=(0, 1, 1)), (1, 5, 1), (0, 0, 2, 2, 0, 0)),
    ],
)
def test_padding_keeps_the_window_where_it_was(conv, shape, expected):
    assert padding_for(conv, shape) == expected


@pytest.mark.parametrize(
    ("conv", "shape", "padding", "mode"),
    [
        (nn.Conv2d(1, 1, 3, padding=1), (5, 5), (2, 2), "zeros"),
        (nn.Conv2d(1, 1, 3, padding=1), (4, 4), "same", "zeros"),
        (nn.Conv2d(1, 1, 3, padding=1, stride=2), (4, 4), (1, 1), "constant"),
        (nn.Conv2d(1, 1, 5), (3, 3), (0, 0), "constant"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), (4, 4), "same", "reflect"),
    ],
)
def test_the_padding_is_one_that_torch_offers_where_it_can_be(conv, shape, padding, mode):
    attributes = centred(conv, shape)
    assert attributes["kernel_size"] == shape
    assert (attributes["padding"], attributes["padding_mode"]) == (padding, mode)
    assert attributes["_reversed_padding_repeated_twice"] == list(padding_for(conv, shape))
