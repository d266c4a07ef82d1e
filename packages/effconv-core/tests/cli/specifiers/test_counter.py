"""What a --counts option names."""

import torch
from effconv_core import SearchableCNN, SearchConfig
from effconv_core.cli.specifiers.counter import counter_of
from torch import nn

SMALL = SearchConfig(k=1)


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3, padding=1))


def test_multiply_accumulates_are_counted_as_by_hand_and_parameters_need_no_counter():
    image, model = torch.zeros(1, 1, 8, 8), network()
    # Of 8x8 places, each 1x1 and 3x3 kernel.
    assert counter_of("macs", image, None)(SearchableCNN(model, SMALL))([3]) == 64 * (2 + 4 * 9)
    assert counter_of("parameters", image, None) is None


def test_times_are_kept_in_the_table(tmp_path):
    counter = counter_of("latency", torch.zeros(1, 1, 8, 8), tmp_path / "times.json")
    assert counter(SearchableCNN(network(), SMALL))([3]) > 0
    assert (tmp_path / "times.json").exists()
