"""Samplers, data sets and generators of a loader: told of each epoch, and one order for each."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from effconv_core import recipe
from effconv_core.engine.loader import RepeatableLoader, epoch_batches
from effconv_core.engine.race import Trials
from effconv_core.layers.loader_parts import (
    generators_of,
    kept_orders,
    seed_orders,
    set_epoch,
)
from effconv_core.rng import seeded
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

CPU = torch.device("cpu")


def test_each_part_is_told_once_from_the_outside_in():
    calls = []

    class Part(Dataset):
        def __init__(self, name, **parts):
            self.name = name
            self.__dict__ |= parts

        def set_epoch(self, epoch):
            calls.append((self.name, epoch))

    data = Part("data")
    set_epoch(Part("loader", sampler=Part("sampler", dataset=data), dataset=data), 5)
    assert calls == [("loader", 5), ("sampler", 5), ("data", 5)]
    set_epoch(Part("loader", own=(Part("first", within=data), data)), 6)
    assert calls[3:] == [("loader", 6), ("first", 6), ("data", 6)]


def test_a_set_epoch_that_is_no_function_is_left_alone():
    told = []
    inner = type("Inner", (), {"set_epoch": staticmethod(told.append)})
    loader = DataLoader([1], 4, sampler=inner)
    loader.set_epoch = 3
    set_epoch(loader, 2)
    assert told == [2]


class Shuffled:
    """Eight batches of five numbers, in an order of Python's generator or of its own."""

    def __init__(self, own=None):
        self.own = own

    def __iter__(self):
        numbers = list(range(40))
        if isinstance(self.own, torch.Generator):
            numbers = torch.randperm(40, generator=self.own)
        else:
            (self.own or random).shuffle(numbers)
        order = torch.as_tensor(numbers)
        for part in order.split(5):
            yield part.float(), part


def orders():
    own = torch.Generator().manual_seed(5)
    data = TensorDataset(torch.arange(40.0), torch.arange(40))
    cut = BatchSampler(RandomSampler(data, generator=own), 5, drop_last=False)
    shuffled = DataLoader(data, 5, shuffle=True, generator=own)
    return {
        "sampler": DataLoader(data, 5, sampler=RandomSampler(data, generator=own)),
        "batch_sampler": DataLoader(data, batch_sampler=cut),
        "command line": RepeatableLoader(shuffled, 0, CPU),
        "own": Shuffled(own),
        "own of NumPy": Shuffled(np.random.default_rng(5)),
        "own of NumPy, another kind": Shuffled(np.random.Generator(np.random.SFC64(5))),
        "own of old NumPy": Shuffled(np.random.RandomState(5)),
        "own of old NumPy, another kind": Shuffled(np.random.RandomState(np.random.PCG64(5))),
        "own of Python": Shuffled(random.Random(5)),
        "python": Shuffled(),
    }


@pytest.mark.parametrize("order", orders())
def test_nothing_held_out_is_trained_on_whatever_draws_the_order(order):
    given = Trials(nn.Linear(1, 1), recipe("bank"), orders()[order], F.mse_loss, 8, 2, CPU)
    trained = [n for _, numbers in islice(given._training(3, 1), 6) for n in numbers.tolist()]
    epoch = list(given._epoch(given.loader, 3))
    tested = [n for i in (1, 6) for n in epoch[i][1].tolist()]
    assert sorted(trained + tested) == list(range(40)) != trained + tested


@pytest.mark.parametrize("order", [name for name in orders() if name.startswith("own")])
def test_the_users_own_generator_goes_on_as_if_nothing_had_been_compared(order):
    def numbers(loader):
        return [n for _, batch in loader for n in batch.tolist()]

    undisturbed, loader = orders()[order], orders()[order]
    expected = numbers(undisturbed), numbers(undisturbed)
    assert numbers(loader) == expected[0]
    with kept_orders(loader):
        seed_orders(loader, 100_000_000_003)
        inside = numbers(loader)
    assert numbers(loader) == expected[1] != inside


def test_what_has_no_state_is_left_alone():
    loader = Shuffled(random.SystemRandom())
    with kept_orders(loader):
        seed_orders(loader, 1)
    assert generators_of(loader) == []


@pytest.mark.parametrize("of_sampler", [False, True])
def test_an_epoch_has_one_order_whatever_was_read_before_it(of_sampler):
    def order(*epochs):
        own, numbers = torch.Generator().manual_seed(3), list(range(12))
        orders = (
            {"shuffle": True, "generator": own},
            {"sampler": RandomSampler(numbers, generator=own)},
        )
        pairs = [(number, number) for number in numbers]
        loader = RepeatableLoader(DataLoader(pairs, 4, **orders[of_sampler]), 2, CPU)
        return [[x.tolist() for x, _ in epoch_batches(loader, epoch, CPU)] for epoch in epochs]

    with seeded(0, CPU):
        zero, one, two = order(0, 1, 2)
        assert order(2) == [two]
    assert zero != one != two
