"""Streams of random numbers: equal for equal numbers, and apart for all others."""

import torch
from effconv_data._seeding import AUGMENTATION, DIVISION, ORDER, SYNTHESIS, VIEW, seeded_generator
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = st.integers(0, 2**32 - 1)
STREAMS = st.lists(NUMBERS, max_size=4).map(tuple)


def drawn(seed, *stream):
    return torch.rand(4, generator=seeded_generator(seed, *stream)).tolist()


def test_no_two_uses_share_a_number():
    assert len({ORDER, AUGMENTATION, SYNTHESIS, DIVISION, VIEW}) == 5


@given(NUMBERS, STREAMS)
def test_a_seed_and_a_stream_give_the_same_draws(seed, stream):
    assert drawn(seed, *stream) == drawn(seed, *stream)


@given(NUMBERS, STREAMS, NUMBERS, STREAMS)
def test_other_numbers_give_other_draws(seed, stream, other_seed, other_stream):
    same = (seed, stream) == (other_seed, other_stream)
    assert (drawn(seed, *stream) == drawn(other_seed, *other_stream)) == same


def test_the_draws_stay_those_of_earlier_releases():
    assert seeded_generator(0, ORDER, 0).initial_seed() == 1317536309490288386
    assert seeded_generator(7).initial_seed() == 8460147692890830636


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    drawn(3, 1)
    assert torch.equal(before, torch.get_rng_state())
