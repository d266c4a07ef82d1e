import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from effconv_core.rng import Draws, kept_generators, seed_generators, seeded


def test_numbers_are_uniform_and_differ_from_call_to_call():
    draws = Draws(0, 0)
    numbers = torch.stack([draws(4) for _ in range(2000)])
    assert ((numbers >= 0) & (numbers < 1)).all()
    torch.testing.assert_close(numbers.mean(0), torch.full((4,), 0.5), atol=0.03, rtol=0)
    torch.testing.assert_close(numbers.var(0), torch.full((4,), 1 / 12), atol=0.01, rtol=0)
    assert len(numbers.unique(dim=0)) == 2000
    # One call's number says nothing of the next one's.
    assert abs(torch.corrcoef(torch.stack([numbers[:-1, 0], numbers[1:, 0]]))[0, 1]) < 0.07


def test_seeds_and_streams_differ_and_a_seed_repeats():
    first = [Draws(seed, stream)(3).tolist() for seed in (0, 1) for stream in (0, 1)]
    assert len({tuple(numbers) for numbers in first}) == 4
    assert Draws(1, 1)(3).tolist() == first[3]


def test_a_loaded_state_goes_on_where_it_was_saved():
    whole, half, resumed = Draws(3, 0), Draws(3, 0), Draws(3, 0)
    expected = [whole(2).tolist() for _ in range(5)]
    for _ in range(2):
        half(2)
    resumed.load_state_dict(half.state_dict())
    assert [resumed(2).tolist() for _ in range(3)] == expected[2:]


def test_the_global_seed_is_neither_used_nor_set():
    before = torch.random.get_rng_state()
    Draws(0, 0)(3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_any_seed_of_64_bits_can_be_drawn_from():
    numbers = [tuple(Draws(seed, 1)(2).tolist()) for seed in (-1, 2**44, 2**62 + 7)]
    assert len(set(numbers)) == 3


def test_a_seed_of_the_global_generator_holds_within_its_block_alone():
    cpu = torch.device("cpu")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(7, cpu):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(7, cpu):
        assert torch.equal(torch.rand(2), first)
    with seeded(None, cpu):
        assert not torch.equal(torch.rand(2), first)


def test_a_seed_holds_for_pythons_and_numpys_generators_too_and_they_go_on_as_before():
    def drawn():
        return random.random(), np.random.rand()  # noqa: NPY002

    with kept_generators(torch.device("cpu")):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        expected = drawn(), drawn()
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        before = drawn()
        with seeded(2**32 + 5, torch.device("cpu")):
            first = drawn()
        assert (before, drawn()) == expected
        with seeded(2**32 + 5, torch.device("cpu")):
            assert drawn() == first
    assert len({*first, *sum(expected, ())}) == 6


def test_only_the_gpu_in_use_is_seeded(monkeypatch):
    # torch.manual_seed would seed all of them, and one alone is put back.
    seeds, current = {}, [0]

    @contextmanager
    def on(device):
        before, current[0] = current[0], device.index
        yield
        current[0] = before

    def seed(number):
        seeds[current[0]] = number

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "manual_seed", seed)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("all were seeded"))
    before = torch.random.get_rng_state()
    seed_generators(5, torch.device("cuda:1"))
    assert seeds == {1: 5}
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(5)))
    torch.random.set_rng_state(before)
    with seeded(6, torch.device("cpu")):
        pass
    assert seeds == {1: 5}
