"""Sizes and masks of a model's FlexConv layers, and what FlexConv refuses."""

import math

import pytest
from effconv_models import FlexConv, FlexConvConfig, anti_aliasing, effective_sizes, mask_parameters
from torch import nn


def test_sizes_and_masks_of_a_model():
    model = nn.Sequential(FlexConv(1, 2, 33), nn.ReLU(), FlexConv(2, 2, (33, 9)))
    assert effective_sizes(model) == {"0": 5, "2": (5, 1)}
    assert [id(m) for m in mask_parameters(model)] == [id(model[0].mask), id(model[2].mask)]
    for function in (effective_sizes, mask_parameters, anti_aliasing):
        with pytest.raises(ValueError, match="the Linear has no FlexConv layer"):
            function(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"c_in": 0}, ValueError, "c_in is 0; the smallest allowed is 1"),
        ({"grid": 8}, ValueError, "grid is 8; a grid has a middle, so pass odd numbers from 3 up"),
        ({"grid": 1}, ValueError, "grid is 1; a grid has a middle"),
        ({"grid": (3, 3, 3)}, ValueError, "pass one number, or one for each of 2 axes"),
        ({"grid": 3.0}, TypeError, "grid is 3.0; it must be an int"),
        ({"axes": 3}, ValueError, "axes is 3; FlexConv has 1 or 2"),
        ({"causal": True}, ValueError, "causal is True with 2 axes"),
        ({"groups": 2}, ValueError, "groups is 2 for 3 and 4 channels; it must divide both"),
        ({"margins": ((0, 0),)}, ValueError, "pass a pair for each of the 2 axes"),
    ],
)
def test_flexconv_refuses(options, error, sentence):
    with pytest.raises(error, match=sentence):
        FlexConv(**{"c_in": 3, "c_out": 4, "grid": 9, **options})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"threshold": 1.0}, "threshold is 1.0; the mask goes from 0 to 1"),
        ({"threshold": -0.1}, "threshold is -0.1"),
        ({"mask_width": 0.0}, "mask_width is 0.0; it must be above 0 and finite"),
        ({"input_scale": math.inf}, "input_scale is inf; it must be above 0 and finite"),
        ({"fft_taps": 0}, "fft_taps is 0; the smallest allowed is 1"),
        ({"hidden": 0}, "hidden is 0; the smallest allowed is 1"),
        ({"layers": 0}, "layers is 0; the smallest allowed is 1"),
    ],
)
def test_a_config_refuses(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        FlexConvConfig(**options)
