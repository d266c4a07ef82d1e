"""How what a loader gives becomes the arguments of a network."""

from collections import UserDict, namedtuple
from types import MappingProxyType

import pytest
import torch
from effconv_core.layers.inputs import arguments_of, copied, on_device, run_on

Pair = namedtuple("Pair", "image mask")


def told(*args, **kwargs):
    return args, kwargs


@pytest.mark.parametrize(
    ("inputs", "args", "kwargs"),
    [
        (3, (3,), {}),
        ("text", ("text",), {}),
        ((1, 2), (1, 2), {}),
        ([1], (1,), {}),
        (Pair(1, 2), (1, 2), {}),
        ((), (), {}),
        ({"image": 1, "mask": 2}, (), {"image": 1, "mask": 2}),
        (MappingProxyType({"image": 1}), (), {"image": 1}),
    ],
)
def test_a_network_gets_positions_names_or_one_argument(inputs, args, kwargs):
    assert run_on(told, inputs) == (args, kwargs)
    assert arguments_of(inputs) == [*args, *kwargs.values()]


def test_copies_do_not_share_memory_with_what_was_given():
    inputs = {"a": [torch.zeros(2), "name"], "b": (torch.ones(1), 3)}
    other = copied(inputs)
    other["a"][0].add_(5)
    other["b"][0].add_(5)
    assert inputs["a"][0].tolist() == [0, 0]
    assert inputs["b"][0].tolist() == [1]
    assert other["a"][0].tolist() == [5, 5]
    assert (other["a"][1], other["b"][1]) == ("name", 3)


@pytest.mark.parametrize("kind", [dict, UserDict, MappingProxyType])
def test_tensors_go_to_the_device_however_deep_they_lie(kind):
    value = kind({"a": [torch.ones(1), "name"], "b": (torch.ones(1), 3)})
    put = on_device(value, torch.device("meta"))
    assert put["a"][0].is_meta
    assert put["b"][0].is_meta
    assert (put["a"][1], put["b"][1]) == ("name", 3)
    assert on_device("name", torch.device("meta")) == "name"
