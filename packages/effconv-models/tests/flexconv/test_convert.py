"""Layers that a network reaches by other ways than their names."""

import pytest
import torch
from effconv_models.flexconv import FlexConv
from effconv_models.flexconv.convert import left_alone, with_flexconv
from torch import nn


class Held(nn.Module):
    """Reaches its layers by a Python list, a dict and a bound method."""

    def __init__(self, reach):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.held = {"list": [self.conv], "dict": {0: self.conv}, "method": (self.conv,)}[reach]

    def forward(self, x):
        return self.held[0](self.stem(x))


@pytest.mark.parametrize("reach", ["list", "dict", "method"])
@pytest.mark.parametrize("how", [{"grid": 9}, {"example": torch.zeros(2, 3, 8, 8)}])
def test_a_layer_is_replaced_wherever_something_holds_it(reach, how):
    flexible, ran = with_flexconv(Held(reach), **how), []
    assert isinstance(flexible.conv, FlexConv)
    flexible.conv.register_forward_hook(lambda *args: ran.append(1))
    assert flexible(torch.zeros(2, 3, 8, 8)).shape == (2, 4, 8, 8)
    assert ran == [1]


@pytest.mark.parametrize("method", ["forward", "_conv_forward"])
def test_a_layer_with_a_forward_of_its_own_is_left_alone(method):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    setattr(net[1], method, getattr(net[1], method))
    assert "its own forward" in left_alone(net)["1"]
