"""What all sources of kernels share: their initial deviation and the mask of a layer."""

import math

import pytest
import torch
from effconv_core.method.kernel_source import gaussian_mask, he_deviation
from effconv_core.space.search_space import Layer


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Layer("square", (8, 3)), 2 / (9 * 8)),
        (Layer("line", (8, 3), axes=(0,)), 2 / (3 * 8)),
        (Layer("cube", (8, 3), axes=(0, 0, 0)), 2 / (27 * 8)),
        (Layer("row", (8, 3), axes=(None, 0)), 2 / (3 * 8)),
        (Layer("grouped", (8, 1), groups=4), 2 / (9 * 2)),
    ],
)
def test_the_deviation_is_hes_fan_out_at_size_three(layer, expected):
    assert he_deviation(layer) == pytest.approx(math.sqrt(expected))


def by_hand(places, deviations, centre):
    """Equation 6 at one tap, with a number for each axis."""
    exponent = 0.0
    for place, (soft, size) in zip(places, deviations):
        middle = soft / 2 if centre == "paper" else (size + 1) / 2
        exponent += (place - middle) ** 2 / soft**2
    return math.exp(-exponent)


@pytest.mark.parametrize("centre", ["paper", "aligned"])
@pytest.mark.parametrize(
    ("axes", "soft", "sizes", "shape", "ruled"),
    [
        ((0, 0), [3.4], [3], (3, 3), [(3.4, 3), (3.4, 3)]),
        ((0, 1), [2.6, 4.2], [3, 4], (3, 4), [(2.6, 3), (4.2, 4)]),
        ((None, 0), [2.6], [3], (1, 3), [(2.6, 3)]),
    ],
)
def test_a_mask_is_that_of_equation_6_at_each_tap(axes, soft, sizes, shape, ruled, centre):
    layer = Layer("a", (1, 1), axes=axes)
    soft_sizes = torch.tensor(soft, dtype=torch.float64)
    mask = gaussian_mask(layer, soft_sizes, sizes, centre)
    assert tuple(mask.shape) == shape
    expected = torch.zeros(shape, dtype=torch.float64)
    for tap in torch.cartesian_prod(*[torch.arange(n) for n in shape]).tolist():
        places = [place + 1 for place, axis in zip(tap, axes) if axis is not None]
        expected[tuple(tap)] = by_hand(places, ruled, centre)
    torch.testing.assert_close(mask, expected)
