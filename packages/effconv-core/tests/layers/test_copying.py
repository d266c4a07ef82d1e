"""Copies of networks run nothing of their originals, whatever holds the layers."""

import functools
import threading
import weakref

import pytest
import torch
from effconv_core import SearchableCNN, apply_plan
from effconv_core.layers.copying import copy_network
from torch import nn
from torch.nn.utils import prune, spectral_norm, weight_norm


def set_forward(net):
    old = net.forward
    net.forward = lambda x: old(x)


def set_partial(net):
    def run(module, x):
        return module.old(x)

    net.old = net.forward
    net.forward = functools.partial(run, net)


def set_default(net):
    net.run = lambda x, conv=net.conv: conv(x)


def set_nested(net):
    def repeated(x, times):
        return x if times == 0 else repeated(net.conv(x), times - 1)

    net.run = lambda x: repeated(x, 1)


def set_list(net):
    convs = [net.conv]
    net.run = lambda x: convs[0](x)


def set_keyword(net):
    def run(x, *, convs=(net.conv,)):
        return convs[0](x)

    net.run = run


def set_weak(net):
    reference = weakref.ref(net.conv)
    net.table = {"a": [lambda x: reference()(x)]}
    net.run = lambda x: net.table["a"][0](x)


def set_method(net):
    net.run = net.conv.forward


def set_tuple(net):
    net.run = functools.partial(torch.Tensor.__add__, torch.zeros(()))
    net.held = ({"conv": (net.conv,)}, functools.partial(net.conv))
    net.run = lambda x: net.held[0]["conv"][0](x) * 0 + net.held[1](x)


def set_hook(net):
    net.after.register_forward_hook(lambda module, args, output: net.conv(output))
    net.run = lambda x: x


HOLDERS = [
    *(set_forward, set_partial, set_default, set_nested, set_list),
    *(set_keyword, set_weak, set_method, set_tuple, set_hook),
]


class Net(nn.Module):
    def __init__(self, hold):
        super().__init__()
        self.conv, self.after = nn.Conv2d(3, 3, 3, padding=1), nn.Identity()
        self.run = lambda x: self.conv(x)
        hold(self)

    def forward(self, x):
        return self.after(self.run(x))


@pytest.mark.parametrize("hold", HOLDERS)
def test_a_copy_runs_its_own_layer(hold):
    net, x = Net(hold), torch.randn(2, 3, 6, 6)
    expected, copied = net(x), copy_network(net)
    torch.testing.assert_close(copied(x), expected)
    with torch.no_grad():
        net.conv.weight.zero_()
        net.conv.bias.zero_()
    torch.testing.assert_close(copied(x), expected)
    assert not net(x).any()


@pytest.mark.parametrize("hold", HOLDERS)
def test_the_cnn_of_a_plan_runs_its_planned_layer(hold):
    net, x = Net(hold), torch.randn(2, 3, 6, 6)
    before = net(x)
    cnn = apply_plan(net, {"conv": 5})
    assert cnn.conv.weight.shape == (3, 3, 5, 5)
    torch.testing.assert_close(cnn(x), nn.functional.conv2d(x, cnn.conv.weight, padding=2))
    torch.testing.assert_close(net(x), before)


def test_functions_that_hold_no_module_are_kept():
    net = Net(lambda net: None)
    numbers = [1, 2]
    net.function = lambda: numbers
    assert copy_network(net).function is net.function


@pytest.mark.parametrize(
    "normed", [weight_norm, spectral_norm, lambda m: prune.l1_unstructured(m, "weight", 0.5)]
)
@pytest.mark.parametrize("place", [0, 3])
def test_computed_weights_are_copied(normed, place):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(2), nn.Tanh()
    ).eval()
    x = torch.randn(2, 3, 6, 6)
    net(x)
    normed(net[place])
    expected = net(x)
    copied = copy_network(net)
    torch.testing.assert_close(copied(x), expected)
    copied(x).sum().backward()
    assert net[1].weight.grad is None
    assert apply_plan(net, {"1": 5})[1].weight.shape == (4, 4, 5, 5)


def test_activations_that_are_kept_are_copied_without_their_graph():
    net = Net(lambda net: None)
    kept = net(torch.randn(1, 3, 6, 6))
    net.kept, net.register = {"all": [kept, (kept.relu(),)]}, kept.sum()
    copied = copy_network(net)
    assert torch.equal(copied.kept["all"][0], kept)
    assert copied.kept["all"][0].grad_fn is None
    assert kept.grad_fn is not None


class Slotted(nn.Module):
    """Keeps its layer in a slot too, which `copy.deepcopy` of a module drops."""

    __slots__ = ("same",)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        object.__setattr__(self, "same", [self.conv])

    def forward(self, x):
        return self.same[0](x)


def test_what_stands_in_slots_is_copied():
    net = nn.Sequential(nn.Conv2d(3, 3, 3), Slotted())
    copied = copy_network(net)
    assert copied[1].same[0] is copied[1].conv is not net[1].conv
    assert apply_plan(net, {"1.conv": 5}, example=torch.randn(2, 3, 8, 8))[1].same[
        0
    ].kernel_size == (5, 5)


class Itself(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def __deepcopy__(self, memo):
        return self


def test_a_frozen_teacher_may_be_shared_and_a_trained_one_not():
    net = nn.Sequential(nn.Conv2d(3, 3, 3), Itself().requires_grad_(False), nn.Conv2d(3, 3, 3))
    copied = copy_network(net)
    assert copied[1] is net[1]
    assert copied[2] is not net[2]
    with pytest.raises(ValueError, match=r"1\.conv"):
        copy_network(net.requires_grad_(True))


def held(value):
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sequential(nn.Conv2d(3, 3, 3)))
    net[1].held = value
    return net


def test_what_cannot_be_copied_is_named_and_nothing_is_changed():
    for value in (threading.Lock(), {"a": [threading.RLock()]}, (n for n in range(3))):
        for run in (SearchableCNN, lambda net: apply_plan(net, {"1.0": 5})):
            with pytest.raises(TypeError, match="'held' of the module '1' cannot be copied"):
                run(held(value))
    net = nn.Sequential(nn.Conv2d(3, 3, 3), Itself())
    for run in (SearchableCNN, lambda net: apply_plan(net, {"1.conv": 5})):
        with pytest.raises(ValueError, match=r"'1\.conv' itself"):
            run(net)
    assert type(net[1].conv) is nn.Conv2d
    assert net[1].conv.kernel_size == (3, 3)
