"""Values of a multiplicative Gabor network, written out for one point."""

import math

import pytest
import torch
from effconv_models.flexconv.magnet import MAGNet


def net(**options):
    values = {"hidden": 3, "layers": 2, "generator": torch.Generator().manual_seed(0)}
    return MAGNet(2, 4, **values | options).double()


def by_hand(network, point):
    def filter_of(number, channel):
        gamma, mu = network.gamma[number, channel], network.mu[number, channel]
        distance = sum((g * (x - m)) ** 2 for g, m, x in zip(gamma, mu, point))
        wave = sum(w * x for w, x in zip(network.frequency[number, channel], point))
        return math.exp(-distance / 2) * math.sin(wave + network.phase[number, channel])

    values = [filter_of(0, channel) for channel in range(3)]
    for number in range(2):
        weight, bias = network.hidden_weight[number], network.hidden_bias[number]
        values = [
            (sum(weight[out, i] * values[i] for i in range(3)) + bias[out])
            * filter_of(number + 1, out)
            for out in range(3)
        ]
    return [
        (sum(w * v for w, v in zip(row, values)) + bias).item()
        for row, bias in zip(network.out_weight, network.out_bias)
    ]


def test_a_point_has_the_values_of_the_equations():
    network = net(input_scale=2.0)
    with torch.no_grad():
        network.mu.mul_(0.3)
        points = torch.tensor([[0.3, -0.8], [0.0, 0.0]], dtype=torch.float64)
        found = network(points)
        assert found.shape == (2, 4)
        for point, values in zip(points.tolist(), found.tolist()):
            assert values == pytest.approx(by_hand(network, point))


def test_initial_centres_lie_within_the_spread():
    network = net(hidden=64, centre=0.5, spread=0.1)
    assert network.mu.min() >= 0.4
    assert network.mu.max() <= 0.6


def test_frequencies_are_in_cycles_and_in_proportion_to_the_input_scale():
    one, four = (
        net(input_scale=scale, generator=torch.Generator().manual_seed(1)) for scale in (1.0, 4.0)
    )
    torch.testing.assert_close(four.frequency, 4 * one.frequency)
    found = one.frequencies(0.0)
    assert found.shape == (3, 2)
    expected = max(abs(w) for w in one.frequency[1, :, 0].tolist()) / (2 * math.pi)
    assert found[1, 0].item() == pytest.approx(expected)
    wider = (one.frequency.abs() + 2 * one.gamma)[1, :, 0].max().item() / (2 * math.pi)
    assert one.frequencies(2.0)[1, 0].item() == pytest.approx(wider)


def test_a_generator_makes_all_initial_values():
    before = torch.get_rng_state()
    one, other = (net(generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
