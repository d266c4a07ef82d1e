"""Banks of GRUs, against those of torch."""

import copy

import pytest
import torch
from effconv_kernels import GRUBank
from torch import nn


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("bias", [True, False])
def test_a_bank_is_its_grus_there_and_back(bias):
    torch.manual_seed(0)
    lengths = [4, 2, 7]
    grus = [nn.GRU(3, 5, bias=bias, dtype=torch.float64) for _ in lengths]
    bank = GRUBank.from_grus(grus)
    for one, other in zip(grus, bank.to_grus(), strict=True):
        for name, parameter in one.named_parameters():
            assert torch.equal(parameter, other.get_parameter(name))
    series, start = drawn(2, sum(lengths), 3), drawn(2, 3, 5, seed=1)
    states, last = bank(series, lengths, start)
    parts = zip(grus, series.split(lengths, 1), start.unbind(1), strict=True)
    expected = [gru(x.transpose(0, 1), s[None].contiguous()) for gru, x, s in parts]
    torch.testing.assert_close(states, torch.cat([e.transpose(0, 1) for e, _ in expected], 1))
    torch.testing.assert_close(last, torch.stack([s[0] for _, s in expected], 1))
    alone, _ = bank(series[0], lengths)
    assert alone.shape == (13, 5)
    constant, _ = bank(series[:, :3], lengths)
    repeated = series[:, :3].repeat_interleave(torch.tensor(lengths), 1)
    torch.testing.assert_close(constant, bank(repeated, lengths)[0])
    states.sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in bank.parameters())


def test_a_bank_starts_like_torch_and_keeps_its_names():
    torch.manual_seed(0)
    bank = GRUBank(200, 3, 16)
    gru = nn.GRU(3, 16)
    assert list(bank.state_dict()) == list(gru.state_dict())
    for name, parameter in gru.named_parameters():
        assert bank.get_parameter(name).shape == (200, *parameter.shape)
        assert bank.get_parameter(name).abs().max() <= 0.25
        assert bank.get_parameter(name).std().item() == pytest.approx(0.25 / 3**0.5, rel=0.05)
    other = copy.deepcopy(bank)
    other.load_state_dict(bank.state_dict())


@pytest.mark.parametrize(
    "grus",
    [[], [nn.GRU(2, 3), nn.GRU(2, 4)], [nn.GRU(2, 3, 2)], [nn.GRU(2, 3, bidirectional=True)]],
)
def test_a_bank_of_unlike_grus_is_refused(grus):
    with pytest.raises(ValueError, match="GRUBank"):
        GRUBank.from_grus(grus)


def test_a_bank_refuses_inputs_of_another_shape():
    bank = GRUBank(2, 3, 4)
    for shape in ((5, 4), (6, 3), (3,), (1, 1, 5, 3)):
        with pytest.raises(ValueError, match="GRUBank: inputs"):
            bank(torch.zeros(shape), [2, 3])
    with pytest.raises(ValueError, match="count is 0"):
        GRUBank(0, 3, 4)
