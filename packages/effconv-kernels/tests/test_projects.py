"""The example projects compute what they say, and learn."""

import importlib.util
from pathlib import Path

import pytest
import torch
from effconv_kernels import assemble_kernels, gru_unroll
from torch import nn

FOLDER = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_bank_of_forecasters_is_a_pair_of_grus_a_series():
    torch.manual_seed(0)
    bank_of = load("forecaster_bank")
    lengths, horizons = [5, 3], [2, 4]
    model = bank_of.ForecasterBank(lengths, horizons, hidden=6).double()
    nn.init.normal_(model.weight)
    given = [tensor.double() for tensor in bank_of.draw(3, lengths, horizons, generator())[:3]]
    ours = model(*given)
    encoders, decoders = model.encoder.to_grus(), model.decoder.to_grus()
    values, signal = (tensor.split(lengths, 1) for tensor in given[:2])
    slow = []
    for layer, ahead in enumerate(given[2].split(horizons, 1)):
        _, last = encoders[layer](torch.stack([values[layer], signal[layer]], 2).transpose(0, 1))
        states, _ = decoders[layer](ahead.t().unsqueeze(2), last)
        slow.append(values[layer][:, -1:] + (states @ model.weight[layer]).t())
    torch.testing.assert_close(ours, torch.cat(slow, 1))
    names, leaves = zip(*model.named_parameters(), strict=True)
    for name, grad in zip(names, torch.autograd.grad(ours.sum(), leaves), strict=True):
        assert grad.abs().max() > 0, name


def test_a_bank_of_forecasters_learns():
    ours, stays = load("forecaster_bank").main(steps=60)
    assert ours < 0.3 * stays


@pytest.mark.parametrize("batch", [1, 3])
def test_a_written_network_writes_each_samples_kernels_by_itself(batch):
    torch.manual_seed(0)
    module = load("hypernetwork_batch")
    network = module.WrittenNetwork([1, 3, 2], code=2, hidden=5).double()
    codes = torch.randn(batch, 2, dtype=torch.float64, generator=generator())
    ours, taps, layers = network.kernels(codes), module.TAPS, 2
    assert [tuple(k.shape) for k in ours] == [(batch, 3, 1, taps), (batch, 2, 3, taps)]
    for sample, code in enumerate(codes):
        weights = network.weight_hh, network.bias_hh, [taps] * layers
        start = network.start(code).view(layers, -1)
        states = gru_unroll(network.places, *weights, initial_state=start)
        alone = assemble_kernels(
            states, network.weight, network.bias, None, sizes=[(taps,)] * 2, channels=network.pairs
        )
        for mine, theirs in zip(ours, alone, strict=True):
            torch.testing.assert_close(mine[sample], theirs)
    signals = torch.randn(batch, 1, 20, dtype=torch.float64, generator=generator(1))
    slow = []
    for sample in range(batch):
        signal = signals[sample]
        for kernel in ours:
            signal = nn.functional.conv1d(signal[None], kernel[sample], padding="same")[0]
        slow.append(signal)
    torch.testing.assert_close(network(signals, codes), torch.stack(slow))


def test_a_written_network_learns_shifts_that_it_has_not_seen():
    assert load("hypernetwork_batch").main(steps=120) < 0.1
