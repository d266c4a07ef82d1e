"""A network whose state is not whole is refused before anything is trained."""

import pytest
import torch
from effconv_core import recipe, search
from effconv_core.engine.train import TrainConfig, train
from effconv_core.layers.own_state import check_own_state
from torch import nn
from torch.nn.utils import parametrizations


class Net(nn.Sequential):
    """A CNN whose state is changed on the way out and on the way in."""

    def __init__(self, out=dict, back=dict):
        conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        super().__init__(*conv, nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
        self.out, self.back = out, back
        self(torch.zeros(2, 3, 6, 6))

    def state_dict(self, *args, **kwargs):
        return self.out(super().state_dict(*args, **kwargs))

    def load_state_dict(self, state, *args, **kwargs):
        return super().load_state_dict(self.back(state), *args, **kwargs)


def without(word):
    return lambda state: {name: value for name, value in state.items() if word not in name}


def renamed(state):
    return {f"net.{name}": value for name, value in state.items()}


class Lenient(Net):
    def load_state_dict(self, state, *args, **kwargs):
        return super().load_state_dict(state, strict=False)


class Frozen(Net):
    """Keeps its last layer's weights out of the state, and of what comes back."""

    def load_state_dict(self, state, *args, **kwargs):
        whole = {**nn.Module.state_dict(self), **state, "4.bias": self[4].bias.detach()}
        return super().load_state_dict(whole)


WRONG = {
    "an entry less": (lambda: Net(without("4.weight")), "4.weight"),
    "other names": (lambda: Net(renamed), "net.0.weight"),
    "no statistics": (lambda: Lenient(without("running_mean")), "2.running_mean"),
    "less, leniently": (lambda: Lenient(without("0.weight")), "0.weight"),
    "an own value": (Frozen, "4.bias"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_state_that_is_not_whole_is_refused(case):
    make, name = WRONG[case]
    with pytest.raises(ValueError, match=rf"{name}.*state_dict"):
        check_own_state(make())


def by_another_prefix():
    return Net(renamed, lambda state: {n.removeprefix("net."): v for n, v in state.items()})


def with_what_is_not_kept():
    net = Net()
    net.register_buffer("scratch", torch.ones(2), persistent=False)
    net[1] = parametrizations.weight_norm(net[1])
    net[0].weight = net[0].weight  # the same parameter under its own name again
    return net


@pytest.mark.parametrize("make", [Net, by_another_prefix, with_what_is_not_kept])
def test_a_whole_state_is_taken_and_nothing_changes(make):
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    check_own_state(net)
    after = net.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def batches(count=2):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 4, 3, 6, 6, generator=generator)
    return list(zip(images, torch.randint(0, 2, (count, 4), generator=generator), strict=True))


def test_neither_a_search_nor_a_training_with_a_checkpoint_begins(tmp_path):
    steps = []
    make = WRONG["other names"][0]
    with pytest.raises(ValueError, match="its own state_dict"):
        search(
            make(), batches(), budget=670, config=recipe("paper", epochs=1), on_step=steps.append
        )
    config = TrainConfig(1, 4, "sgd", 0.1, 0.0, "cosine", 0.0)
    with pytest.raises(ValueError, match="its own state_dict"):
        train(make(), batches(), config, checkpoint=tmp_path / "x", on_step=steps.append)
    assert not steps
    assert not list(tmp_path.iterdir())
    train(make(), batches(), config, on_step=steps.append)  # nothing is kept, so nothing is lost
    assert len(steps) == 2
