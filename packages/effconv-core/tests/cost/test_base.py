"""Costs of a network that only looks like a searchable one."""

import torch
from effconv_core import Macs, SearchableCNN
from torch import nn

MEMBERS = {
    *("model", "layers", "convs", "space", "cost", "soft_sizes"),
    *("kernels_at", "kernels_of", "forward_at", "parameters", "modules"),
}


class Stand:
    """What `Searchable` asks for, by another class than `SearchableCNN`, around one."""

    def __init__(self, within):
        for name in MEMBERS:
            setattr(self, name, getattr(within, name))

    def __deepcopy__(self, memo):
        return self

    def eval(self):
        return self


def test_multiply_accumulates_are_counted_on_whatever_has_the_members():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1))
    searchable = SearchableCNN(model).eval()
    counter = Macs(torch.zeros(1, 3, 8, 8))
    found, expected = counter(Stand(searchable)), counter(searchable)
    assert (found.constant, found.per_tap) == (expected.constant, expected.per_tap)
