"""What a step of each method costs, and what it trains."""

import pytest
import torch

from tools.bench.steps import random_batch
from tools.methods import cost
from tools.methods.networks import METHODS, SIZES, make


@pytest.mark.parametrize("method", METHODS)
def test_every_step_of_a_method_moves_what_it_trains(method):
    steps = cost.method_steps(method, SIZES["small"], 2, 8, "cpu")
    names = {"train"}
    if method == "effconv":
        names |= {"search, paper recipe", "search, default recipe"}
    if method == "multi-resolution":
        names |= {"mixing"}
    assert set(steps) == names
    for step in steps.values():
        step()


def test_a_mixing_step_moves_the_mixing_alone():
    network = make("multi-resolution", SIZES["small"], 32, 0)
    before = {name: value.clone() for name, value in network.named_parameters()}
    cost._mixing_step(network, *random_batch(2, 8, "cpu"))()
    moved = {n for n, value in network.named_parameters() if not torch.equal(value, before[n])}
    assert moved
    assert all(before[name].numel() == 4 for name in moved)


def test_memory_is_that_of_a_process_of_its_own():
    assert cost.peak_of("uniform", "small", 2, 8, "cpu") > 100
