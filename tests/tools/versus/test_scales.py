"""The scales of the comparison: each has a network, a training, and a search within it."""

from dataclasses import replace

import pytest

from tools.versus.scales import SCALES


@pytest.mark.parametrize("scale", SCALES)
def test_a_search_has_the_changes_of_its_scale_and_its_own_seed(scale):
    config = SCALES[scale].config(3)
    assert config.seed == 3
    assert all(getattr(config, name) == value for name, value in SCALES[scale].search.items())


@pytest.mark.parametrize("scale", SCALES)
def test_a_space_has_the_data_and_training_of_its_scale(scale):
    space = SCALES[scale].space("cpu")
    assert space.train == SCALES[scale].train
    assert space.samples == SCALES[scale].pictures
    assert replace(space, samples=space.train.batch_size).budget > 0  # of the network alone


def test_small_scales_are_smaller():
    assert SCALES["smoke"].pictures < SCALES["cpu"].pictures < SCALES["gpu"].pictures
    assert SCALES["gpu"].pictures == 50_000
