"""Filters and mixing weights trained in turns (WACV submission 832, Section 3.4)."""

import copy

import pytest
import torch
from effconv_core.engine.train import TrainConfig, train
from effconv_data import synthetic
from effconv_models import MultiResolutionNet, mixing_parameters
from torch import nn

from tools.train.alternating import alternating
from tools.train.multi_resolution import MixingConfig


def network(seed: int = 0) -> MultiResolutionNet:
    generator = torch.Generator().manual_seed(seed)
    options = {"resolutions": 3, "learned_depth": True, "in_channels": 1, "num_classes": 4}
    return MultiResolutionNet(4, 4, **options, generator=generator)


class InDouble:
    """A set in float64, so that only a wrong rule can tell two trainings apart."""

    def __init__(self, data):
        self.data, self.set_epoch = data, data.set_epoch

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return ((images.double(), labels) for images, labels in self.data)


def parts():
    return synthetic(4, samples=160, image_size=8, batch_size=32, seed=0).divide(0.4, seed=1)


def in_turns(model: nn.Module, config: TrainConfig, second, steps: int) -> dict:
    """Return the arguments of `train` that let two optimizers alternate."""
    mixing = MixingConfig(lr=0.02)
    adam = torch.optim.Adam(
        mixing_parameters(model), mixing.lr, betas=mixing.betas, weight_decay=mixing.weight_decay
    )
    optimizer, on_step = alternating(model, config, adam, second, steps)
    return {"optimizer": optimizer, "on_step": on_step}


def test_the_defaults_are_the_papers():
    config = MixingConfig()
    assert (config.lr, config.betas, config.weight_decay) == (1e-4, (0.5, 0.999), 3e-4)
    assert config.share == 10_000 / 50_000


def test_turns_follow_sgd_and_adam_written_out():
    first, second = map(InDouble, parts())
    assert (len(first), len(second)) == (3, 2)
    trained = network().double()
    slow = copy.deepcopy(trained)
    config = TrainConfig(epochs=2, batch_size=32, lr=0.05, weight_decay=0.01, schedule="cosine")
    train(trained, first, config, **in_turns(trained, config, second, len(first)))

    mixing = mixing_parameters(slow)
    filters = [p for p in slow.parameters() if all(p is not m for m in mixing)]
    assert len(filters) + len(mixing) == len(list(slow.parameters()))
    momenta = [torch.zeros_like(p) for p in filters]
    averages, squares = ([torch.zeros_like(p) for p in mixing] for _ in range(2))
    loss_of = nn.CrossEntropyLoss()
    # Three steps an epoch, for which two passes of two batches are begun.
    others, batches = [], []
    for number in range(4):
        second.set_epoch(number)
        others.append(list(second))
    for epoch in range(2):
        first.set_epoch(epoch)
        other = (others[2 * epoch] + others[2 * epoch + 1])[:3]
        batches += list(zip(first, other, strict=True))
    slow.train()
    for step, ((images, labels), (other_images, other_labels)) in enumerate(batches):
        rate = 0.05 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 6)).item())
        gradients = torch.autograd.grad(loss_of(slow(images), labels), filters)
        with torch.no_grad():
            for p, m, g in zip(filters, momenta, gradients, strict=True):
                m.mul_(0.9).add_(g + 0.01 * p)
                p.sub_(rate * m)
        gradients = torch.autograd.grad(loss_of(slow(other_images), other_labels), mixing)
        with torch.no_grad():
            for p, a, s, g in zip(mixing, averages, squares, gradients, strict=True):
                g = g + 3e-4 * p
                a.mul_(0.5).add_(0.5 * g)
                s.mul_(0.999).add_(0.001 * g * g)
                corrected = (s / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                p.sub_(0.02 * a / (1 - 0.5 ** (step + 1)) / corrected)
    for (name, ours), theirs in zip(trained.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8, msg=name)
        assert not torch.equal(ours, dict(network().double().named_parameters())[name])


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path):
    config = TrainConfig(epochs=3, batch_size=32, lr=0.05)
    straight, (first, second) = network(), parts()
    train(straight, first, config, **in_turns(straight, config, second, len(first)))

    class StopError(Exception):
        pass

    def stopped(arguments):
        def on_step(step):
            arguments["on_step"](step)
            if step.epoch == 1 and step.step == 1:
                raise StopError

        return arguments | {"on_step": on_step}

    checkpoint, cut, resumed = tmp_path / "train.safetensors", network(), network(seed=9)
    first, second = parts()
    arguments = stopped(in_turns(cut, config, second, len(first)))
    with pytest.raises(StopError):
        train(cut, first, config, checkpoint=checkpoint, **arguments)
    seen, (first, second) = [], parts()
    arguments = in_turns(resumed, config, second, len(first))
    take_turn = arguments.pop("on_step")
    train(
        resumed,
        first,
        config,
        checkpoint=checkpoint,
        on_step=lambda step: [take_turn(step), seen.append(step.epoch)],
        **arguments,
    )
    assert set(seen) == {1, 2}
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lr": 0.0}, "lr of the mixing is 0.0; it must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay of the mixing is -1.0; it must be at least 0"),
        ({"betas": (0.5, 1.0)}, r"betas of the mixing are \(0.5, 1.0\); each must be"),
    ],
)
def test_a_bad_setting_is_refused_by_name(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        MixingConfig(**change)
