"""A network of sines, written out for one point."""

import math

import pytest
import torch
from effconv_models.flexconv.siren import SIREN


def net(layers=3, seed=0, hidden=3):
    generator = torch.Generator().manual_seed(seed)
    return SIREN(2, 4, hidden=hidden, layers=layers, omega_0=5.0, generator=generator).double()


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_a_point_has_the_values_of_the_equations(layers):
    network, point = net(layers), [0.3, -0.8]

    def linear(weight, bias, values):
        pairs = zip(weight.tolist(), bias.tolist())
        return [sum(w * v for w, v in zip(row, values)) + b for row, b in pairs]

    values = [math.sin(5 * v) for v in linear(network.in_weight, network.in_bias, point)]
    for weight, bias in zip(network.hidden_weight, network.hidden_bias):
        values = [math.sin(5 * v) for v in linear(weight, bias, values)]
    expected = linear(network.out_weight, network.out_bias, values)
    found = network(torch.tensor([point], dtype=torch.float64))
    assert found.shape == (1, 4)
    assert found[0].tolist() == pytest.approx(expected)


def test_initial_weights_lie_within_their_bounds():
    network = net(hidden=64)
    assert network.in_weight.abs().max() <= 1 / 2
    assert network.hidden_weight.abs().max() <= math.sqrt(6 / 64) / 5
    assert network.hidden_weight.std().item() == pytest.approx(math.sqrt(2 / 64) / 5, rel=0.05)


def test_a_generator_makes_all_initial_values():
    before = torch.get_rng_state()
    one, again, other = net(), net(), net(seed=1)
    assert torch.equal(before, torch.get_rng_state())
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(one.in_weight, other.in_weight)
