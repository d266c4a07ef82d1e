"""Layers that `with_flexconv` keeps, names that look like patterns, and numbers of NumPy."""

import numpy as np
import pytest
import torch
from effconv_models import create_model, left_alone, with_flexconv
from torch import nn


def conv(**changes):
    return nn.Conv2d(4, 4, 3, padding=1, **changes)


def switched_off():
    return conv().requires_grad_(False)


def buffered():
    layer = conv()
    weight = layer.weight.detach()
    del layer.weight
    layer.register_buffer("weight", weight)
    return layer


@pytest.mark.parametrize("fixed", [switched_off, buffered])
def test_a_fixed_kernel_is_kept(fixed):
    model = nn.Sequential(conv(), fixed(), conv())
    assert "fixed kernel" in left_alone(model)["1"]
    assert torch.equal(with_flexconv(model, grid=9)[1].weight, model[1].weight)


def test_a_fixed_kernel_is_replaced_where_it_is_asked_for():
    layer = with_flexconv(nn.Sequential(conv(), switched_off()), grid=9, chosen="1")[1]
    assert hasattr(layer, "sample")
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_a_bias_that_is_no_parameter_is_not_made_one():
    model = nn.Sequential(conv(), conv(), conv())
    bias = model[1].bias.detach()
    del model[1].bias
    model[1].register_buffer("bias", bias)
    assert left_alone(model)["1"] == "has a bias that is not a parameter"


@pytest.mark.parametrize("name", ["mix[3x3]", "a*", "what?", "two words"])
def test_a_layer_may_have_any_name(name):
    model = nn.Sequential()
    for own in ("stem", name, "another"):
        model.add_module(own, conv())
    found = with_flexconv(model, grid=9, chosen=[name])
    assert hasattr(found.get_submodule(name), "sample")
    assert isinstance(found.another, nn.Conv2d)


@pytest.mark.parametrize("scalar", [np.int64, np.uint8, torch.tensor])
def test_counts_may_be_integers_of_numpy_and_of_tensors(scalar):
    model = create_model("cifar_resnet20", num_classes=scalar(7))
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("value", [np.float64(7), True, np.True_, torch.tensor(True), "7"])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(TypeError, match="num_classes"):
        create_model("cifar_resnet20", num_classes=value)
