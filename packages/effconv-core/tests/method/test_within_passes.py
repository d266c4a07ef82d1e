"""What a network does within a pass decides whether its plans can be compared, before training."""

import functools
import random

import pytest
import torch
from effconv_core import Latency, SearchableCNN, apply_plan, recipe, search
from torch import nn


class Net(nn.Module):
    """A network whose middle layer is reached in some way."""

    def __init__(self, middle=lambda net, x: net.conv(x)):
        super().__init__()
        torch.manual_seed(0)
        self.middle = middle
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.fc = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        features = self.last(self.middle(self, self.stem(x)).relu())
        return self.fc(features.mean((2, 3)))


def batches(count=5):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, 12, 12, generator=generator), torch.tensor([0, 1, 2, 0]))
        for _ in range(count)
    ]


QUICK = {"epochs": 1, "least_steps": 0, "race_steps": 0, "finalists": 2, "exploration": 1.0}


class Penalised(Net):
    """Gives what needs the gradient of its outputs, in training."""

    def __init__(self, whole):
        super().__init__()
        self.whole = whole

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        with torch.set_grad_enabled(self.whole or torch.is_grad_enabled()):
            x = x.detach().requires_grad_()
            scores = super().forward(x)
            (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
            return scores + gradient.square().mean()


@pytest.mark.parametrize("race_steps", [0, 3])
def test_a_network_that_asks_for_gradients_is_compared_or_refused_at_the_start(race_steps):
    config, steps = recipe("bank", **QUICK | {"race_steps": race_steps}), []
    with pytest.raises(ValueError, match=r"torch\.enable_grad\(\)"):
        search(Penalised(False), batches(), config=config, on_step=steps.append)
    assert not steps
    assert set(search(Penalised(True), batches(), config=config)) == {"conv", "last"}


OWN = {
    "Python's": random.Random(0).random,
    "torch's": functools.partial(torch.rand, (), generator=torch.Generator()),
    "the system's": random.SystemRandom().random,
}


@pytest.mark.parametrize("whose", OWN)
def test_chance_that_no_seed_repeats_is_told_from_another_network(whose):
    net = Net(lambda n, x: n.conv(x) * (OWN[whose]() if n.training else 1))
    with pytest.raises(ValueError, match="other outputs in each pass"):
        search(net, batches(), config=recipe("bank", **QUICK))


def test_what_is_not_finite_is_not_taken_for_another_network():
    images = torch.zeros(4, 3, 12, 12)
    images[0, 0, 6, 6] = torch.nan
    loader = [(images, batches()[0][1])]
    for shapes in ("exact", "padded"):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(2))
        net.append(nn.Flatten())
        with pytest.raises(FloatingPointError, match="not finite"):
            search(net, loader, config=recipe("bank", shapes=shapes, **QUICK))


@pytest.mark.parametrize("form", ["bank", "paper", "literal"])
@pytest.mark.parametrize("shapes", ["exact", "padded"])
def test_what_is_built_does_not_depend_on_the_default_device(form, shapes):
    net, x = Net(), batches()[0][0]
    config = recipe(form, shapes=shapes)

    def built():
        searchable = SearchableCNN(net, config)
        outputs = searchable(x), searchable.budget_loss(900)
        found = searchable.warm_start({"conv": 5, "last": 3}), apply_plan(net, {"conv": 5})
        return [*outputs, *searchable.state_dict().values(), *found[0].state_dict().values()], found

    wanted, _ = built()
    with torch.device("meta"):
        given, found = built()
    assert all(torch.equal(a, b) for a, b in zip(wanted, given, strict=True))
    assert not any(tensor.is_meta for cnn in found for tensor in cnn.state_dict().values())


class Forgetful(Net):
    """Its methods that change it return nothing."""

    def train(self, mode=True):
        super().train(mode)

    def to(self, *args, **kwargs):
        super().to(*args, **kwargs)


@pytest.mark.parametrize("race_steps", [0, 3])
def test_what_methods_that_change_a_network_return_does_not_matter(race_steps):
    config = recipe("bank", **QUICK | {"race_steps": race_steps})
    images, targets = batches()[0]
    loader = [*batches(), (images[:1], targets[:1])]  # which one sample is tried for
    assert set(search(Forgetful(), loader, config=config)) == {"conv", "last"}
    cost = Latency(images, repetitions=1, warmups=0)(SearchableCNN(Forgetful()))
    assert cost([7, 7]) > 0
