"""GRUs on inputs that never change, against those of torch."""

import pytest
import torch
from effconv_core.method.gru import INPUTS, FixedInputGRUs
from torch import nn

STEPS = [4, 1, 3]


def grus(seed=0, hidden=5):
    return FixedInputGRUs(len(STEPS), hidden, torch.Generator().manual_seed(seed)).double()


def test_each_is_a_gru_of_torch_on_its_own_input():
    ours, start = grus(), 0
    states = ours(STEPS)
    assert states.shape == (sum(STEPS), 5)
    for layer, count in enumerate(STEPS):
        other = nn.GRU(INPUTS, 5).double()
        with torch.no_grad():
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(other, f"{name}_l0").copy_(getattr(ours, name)[layer])
        expected, _ = other(ours.z[layer].expand(count, 1, INPUTS))
        torch.testing.assert_close(states[start : start + count], expected[:, 0])
        start += count


def test_the_inputs_are_kept_and_not_learned():
    ours = grus()
    assert "z" not in dict(ours.named_parameters())
    assert ours.state_dict()["z"].shape == (3, INPUTS)
    assert ours.z.std().item() == pytest.approx(1, abs=0.2)


def test_initial_values_are_uniform_and_those_of_the_generator():
    values = torch.cat([p.detach().flatten() for p in grus(hidden=16).parameters()])
    assert values.abs().max().item() <= 0.25
    assert values.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.05)
    for name, value in grus().state_dict().items():
        torch.testing.assert_close(value, grus().state_dict()[name], rtol=0, atol=0)
    assert not torch.equal(grus().weight_hh, grus(seed=1).weight_hh)
    state = torch.get_rng_state()
    grus()
    assert torch.equal(state, torch.get_rng_state())
