"""The CNN of a plan is the network that was searched, or a sentence says why not, at the start."""

import copy
import functools
import random
import weakref

import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, apply_plan, load, recipe, save, search
from effconv_core.layers.parametrized import kernel_tensor
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations


class Net(nn.Module):
    """A network whose middle layer is reached in some way."""

    def __init__(self, middle, prepare=lambda net: None):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.fc = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Linear(4, 3)
        self.middle = middle
        prepare(self)

    def forward(self, x):
        features = self.last(self.middle(self, self.stem(x)).relu())
        return self.fc(features.mean((2, 3)))


def hold(make):
    return lambda net: setattr(net, "held", make(net.conv))


def skipping(net, x):
    return x if net.training and torch.rand(()) < 0.5 else net.conv(x)


def skipping_by_python(net, x):
    return x if net.training and random.random() < 0.5 else net.conv(x)


def counting(net, x):
    net.passes = getattr(net, "passes", 0) + 1
    return net.conv(x) * net.passes


HOLDING = {
    "list": (lambda n, x: n.held[0](x), hold(lambda conv: [conv])),
    "tuple in a dict": (lambda n, x: n.held["a"][0](x), hold(lambda conv: {"a": (conv,)})),
    "bound method": (lambda n, x: n.held(x), hold(lambda conv: conv.forward)),
    "weak reference": (lambda n, x: n.held()(x), hold(weakref.ref)),
    "partial": (lambda n, x: n.held(x), hold(lambda c: functools.partial(lambda m, x: m(x), c))),
    "closure": (lambda n, x: n.held(x), hold(lambda conv: lambda x: conv(x))),
    "two names": (lambda n, x: n.held(n.conv(x)), hold(lambda conv: conv)),
    "hook": (lambda n, x: x, lambda n: n.stem.register_forward_hook(lambda m, a, o: n.conv(o))),
    "layer's own method": (lambda n, x: n.conv._conv_forward(x, n.conv.weight, None), None),
    "weight, to scale": (lambda n, x: n.conv(x) / n.conv.weight.norm(), None),
    "stride read": (lambda n, x: n.conv(F.pad(x, (0, -x.shape[-1] % n.last.stride[0]))), None),
    "class": (lambda n, x: n.conv(x) if isinstance(n.conv, nn.Conv2d) else x, None),
    "by name": (lambda n, x: n.conv(input=x), None),
    "vmap": (lambda n, x: torch.vmap(n.conv)(x), None),
    "call of functions": (
        lambda n, x: torch.func.functional_call(n.conv, dict(n.conv.named_parameters()), (x,)),
        None,
    ),
    "chance": (skipping, None),
    "Python's chance": (skipping_by_python, None),
    "dropout": (lambda n, x: F.dropout(n.conv(x), 0.5, n.training), None),
    "state": (counting, None),
}
NOT_HOLDING = {
    "kernel_size": lambda n, x: n.conv(F.pad(x, (n.conv.kernel_size[0] - 1, 0))),
    "padding": lambda n, x: n.conv(x)[:, :, n.conv.padding[0] : -n.conv.padding[0]],
    "weight": lambda n, x: F.conv2d(x, n.conv.weight, padding=n.conv.padding),
    "taps": lambda n, x: F.conv2d(x, n.conv.weight, padding=1),
    "masked": lambda n, x: F.conv2d(x, n.conv.weight * torch.ones(3, 3).tril(), padding=1),
    "unfolded": lambda n, x: (
        n.conv.weight.flatten(1) @ F.unfold(x, n.conv.kernel_size, padding=1)
    ).view_as(x),
    "other weight": lambda n, x: torch.func.functional_call(
        n.conv, {"weight": 2 * n.conv.weight}, (x,)
    ),
    "parameters": lambda n, x: n.conv(x) * next(n.conv.parameters()).view(4, -1)[:, 8].sum(),
}


def make(middle, prepare=None):
    torch.manual_seed(0)
    return Net(middle, prepare or (lambda net: None))


def batches(count=4):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 3, 12, 12, generator=generator), torch.tensor([0, 1, 2, 0]))
        for _ in range(count)
    ]


QUICK = {"epochs": 1, "least_steps": 0, "race_steps": 0, "finalists": 2, "exploration": 1.0}


@pytest.mark.parametrize("shapes", ["exact", "padded"])
@pytest.mark.parametrize("way", HOLDING)
def test_a_layer_is_reached_by_whatever_holds_it(way, shapes, tmp_path):
    searchable = SearchableCNN(make(*HOLDING[way]), recipe("bank", shapes=shapes, **QUICK))
    plan = search(searchable, batches())
    sizes = dict.fromkeys(plan, 5) | {"conv": 4}
    cnn, x = searchable.warm_start(sizes).eval(), batches()[0][0]
    searchable.eval()
    passes = copy.deepcopy(getattr(searchable.model, "passes", None))
    expected = searchable.forward_at([sizes[name] for name in searchable.layers], x)
    if passes is not None:
        cnn.passes = passes
    torch.testing.assert_close(cnn(x), expected)
    assert sum(p.numel() for p in cnn.parameters()) == searchable.cost(
        [sizes[name] for name in searchable.layers]
    )
    fresh = apply_plan(make(*HOLDING[way]), plan)
    save(fresh, plan, tmp_path / "cnn.safetensors")
    again = load(make(*HOLDING[way]), tmp_path / "cnn.safetensors", example=x)
    torch.testing.assert_close(again.eval()(x), fresh.eval()(x))


@pytest.mark.parametrize("way", NOT_HOLDING)
def test_what_reads_a_size_is_refused_before_the_first_step(way):
    net, steps, x = make(NOT_HOLDING[way]), [], batches()[0][0]
    config = recipe("bank", **QUICK)
    ways = [
        lambda: search(net, batches(), config=config, on_step=steps.append),
        lambda: SearchableCNN(net, config, example=x),
        lambda: SearchableCNN(net, config).warm_start({"conv": 5, "last": 3}, example=(x,)),
        lambda: apply_plan(net, {"conv": 5}, example=x),
    ]
    for run in ways:
        with pytest.raises(ValueError, match="'conv'"):
            run()
    assert steps == []
    without = search(net, batches(), config=config, searched="last")
    assert list(without) == ["last"]


def test_the_sentence_says_which_line_reads_what():
    with pytest.raises(ValueError, match=r"test_found.py:\d+\) reads kernel_size of 'conv'"):
        SearchableCNN(make(NOT_HOLDING["kernel_size"]), example=torch.zeros(2, 3, 12, 12))


@pytest.mark.parametrize("shapes", ["exact", "padded"])
def test_the_check_leaves_no_trace(shapes):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 4, 3))
    searchable = SearchableCNN(net, recipe("bank", shapes=shapes))
    before = copy.deepcopy(searchable.state_dict()), torch.get_rng_state(), random.getstate()
    modes = [module.training for module in searchable.modules()]
    SearchableCNN(net, recipe("bank", shapes=shapes), example=torch.ones(2, 3, 8, 8))
    searchable.warm_start({"3": 5}, example=torch.ones(2, 3, 8, 8))
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    assert [module.training for module in searchable.modules()] == modes
    assert not any(conv.has_run for conv in searchable.convs)
    for name, tensor in searchable.state_dict().items():
        assert torch.equal(tensor, before[0][name]), name


class Auxiliary(Net):
    """Its outputs are of another kind in evaluation mode."""

    def __init__(self, kind):
        super().__init__(lambda net, x: net.conv(x))
        self.kind = kind

    def forward(self, x):
        scores = super().forward(x)
        return self.kind(scores) if self.training else scores


@pytest.mark.parametrize("race_steps", [0, 4])
@pytest.mark.parametrize(
    ("kind", "main"),
    [
        (lambda s: (s, 2 * s), lambda o: o[0] + o[1]),
        (lambda s: {"out": s, "aux": [s]}, lambda o: o["out"] + o["aux"][0]),
    ],
)
def test_plans_are_compared_by_the_outputs_of_the_training(kind, main, race_steps):
    def criterion(outputs, targets):
        return F.cross_entropy(main(outputs), targets)

    config = recipe("bank", **QUICK | {"race_steps": race_steps})
    plan = search(Auxiliary(kind), batches(5), config=config, criterion=criterion)
    assert list(plan) == ["conv", "last"]


def test_a_criterion_that_does_not_take_the_outputs_of_a_comparison_is_refused_at_the_start():
    class Odd(Net):
        def forward(self, x):
            return super().forward(x) if self.last.training else None

    steps = []
    with pytest.raises(ValueError, match="as the end of a search does"):
        search(
            Odd(lambda net, x: net.conv(x)),
            batches(),
            config=recipe("bank", **QUICK),
            criterion=lambda outputs, targets: F.cross_entropy(outputs, targets),
            on_step=steps.append,
        )
    assert steps == []


class Block(nn.Module):
    def __init__(self, way, stride, size, bias, norm, frozen, normed):
        super().__init__()
        self.way = way
        kind = nn.ConvTranspose2d if way == "up" else nn.Conv2d
        self.conv = kind(4, 4, size, stride, size // 2, bias=bias)
        self.conv.requires_grad_(not frozen)
        if normed is not None:
            normed(self.conv)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.held = [self.conv]
        self.called = lambda x: self.conv(x)

    def forward(self, x):
        k, p = self.conv.kernel_size[0], self.conv.padding[0]
        out = {
            "call": lambda: self.conv(x),
            "up": lambda: F.interpolate(self.conv(x), x.shape[2:]),
            "list": lambda: self.held[0](x),
            "closure": lambda: self.called(x),
            "residual": lambda: self.conv(x) + F.avg_pool2d(x, 1, self.conv.stride[0]),
            "twice": lambda: self.conv(F.interpolate(self.conv(x), x.shape[2:])),
            "mode": lambda: self.conv(x) * (2 if self.training else 1),
            "pads": lambda: self.conv(F.pad(x, (k - 1, 0))),
            "crops": lambda: self.conv(F.pad(x, (0, 0, 4, 0)))[:, :, p:],
            "scales": lambda: self.conv(x) / self.conv.weight[0, 0].numel(),
        }[self.way]()
        return self.norm(out).relu()


ODD = {"pads", "crops", "scales"}
WAYS = ["call", "up", "list", "closure", "residual", "twice", "mode", *ODD]
NORMS = [None, parametrizations.weight_norm, parametrizations.spectral_norm]
BLOCKS = st.builds(
    Block,
    st.sampled_from(sorted(WAYS)),
    st.integers(1, 2),
    st.sampled_from([3, 5]),
    *[st.booleans()] * 3,
    st.sampled_from(NORMS),
)


@settings(deadline=None, max_examples=30)
@given(
    blocks=st.lists(BLOCKS, min_size=1, max_size=3),
    shared=st.booleans(),
    shapes=st.sampled_from(["exact", "padded"]),
    normed=st.sampled_from(NORMS),
    seed=st.integers(0, 100),
)
def test_random_networks_hold_or_are_refused_before_the_first_step(
    blocks, shared, shapes, normed, seed
):
    torch.manual_seed(seed)
    x, steps = torch.randn(4, 3, 16, 16), []
    blocks = [*blocks, blocks[0]] if shared else blocks
    fc = nn.Linear(4, 3) if normed is None else normed(nn.Linear(4, 3))
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), fc
    )
    config = recipe("bank", shapes=shapes, **QUICK | {"finalists": 1}, count="model")
    try:
        searchable = SearchableCNN(net, config)
        search(searchable, [(x, torch.tensor([0, 1, 2, 0]))], on_step=steps.append)
    except ValueError:
        # What reads nothing of its layers is refused only where nothing can be searched.
        assert not steps
        fixed = all(not kernel_tensor(block.conv).requires_grad for block in blocks)
        odd = ODD | ({"up"} if shapes == "padded" else set())  # of even sizes, between the taps
        assert fixed or odd & {block.way for block in blocks}
        return
    assert len(steps) == 1
    random_sizes = random.Random(seed)
    sizes = [random_sizes.choice(allowed) for allowed in searchable.space.ranges]
    plan = searchable.space.by_layer(sizes)
    cnn = searchable.warm_start(plan)
    kernels = dict(zip(searchable.layers, searchable.kernels_at(sizes), strict=True))
    for name, kernel in kernels.items():
        own = kernel_tensor(cnn.get_submodule(name))
        torch.testing.assert_close(own, kernel, rtol=1e-5, atol=1e-5)
    for mode in (True, False):
        expected = searchable.train(mode).forward_at(sizes, x)
        torch.testing.assert_close(cnn.train(mode)(x), expected, rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in cnn.parameters()) == searchable.cost(sizes)
    again = apply_plan(net, plan)
    again.load_state_dict(cnn.state_dict())
    torch.testing.assert_close(again.eval()(x), cnn.eval()(x))


COMPILED = {
    "whole": lambda net: torch.compile(net, backend="eager"),
    "a part": lambda net: setattr(net, "last", torch.compile(net.last, backend="eager")) or net,
    "in place": lambda net: net.compile(backend="eager") or net,
}


@pytest.mark.parametrize("way", COMPILED)
def test_a_compiled_network_is_checked_as_it_is(way):
    net, x = COMPILED[way](make(lambda net, x: net.conv(x))), batches()[0][0]
    searchable = SearchableCNN(net, recipe("bank", **QUICK), example=x)
    assert len(searchable.layers) == 2
    assert apply_plan(net, dict.fromkeys(searchable.layers, 5), example=x) is not net


class ZeroBranch(nn.Module):
    """Its branch begins at zero, so that its outputs are those of any kernel."""

    def __init__(self, read):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.gain, self.read = nn.Parameter(torch.zeros(4, 1, 1)), read

    def forward(self, x):
        x = self.stem(x)
        return self.fc((x + self.gain * self.read(self.conv, x)).mean((2, 3)))


def padded_as_read(conv, x):
    return conv(F.pad(x, (conv.kernel_size[0] - 1, 0) * 2))[..., :12, :12]


def scaled_as_read(conv, x):
    return conv(F.pad(x, (1, 1, 1, 1)) / conv.kernel_size[0])


@pytest.mark.parametrize("read", [padded_as_read, scaled_as_read])
def test_a_branch_that_begins_at_zero_hides_no_layer(read):
    with pytest.raises(ValueError, match="kernel_size"):
        search(ZeroBranch(read), batches(), config=recipe("bank", **QUICK))
    held = ZeroBranch(lambda conv, x: conv(F.pad(x, (1, 1, 1, 1))))
    assert search(held, batches(), config=recipe("bank", **QUICK)).keys() == {"conv"}


class Held:
    """Holds outputs by attribute."""

    def __init__(self, scores):
        self.scores, self.itself = scores, self


class Slotted:
    __slots__ = ("scores",)

    def __init__(self, scores):
        self.scores = scores


@pytest.mark.parametrize(
    "kind",
    [Held, Slotted, lambda s: [Held(s)], lambda s: torch.distributions.Categorical(logits=s)],
)
@pytest.mark.parametrize("holds", [True, False])
def test_outputs_of_any_kind_are_compared(kind, holds):
    class Wrapped(Net):
        def forward(self, x):
            scores = super().forward(x)
            return kind(scores if self.training or holds else scores * self.conv.kernel_size[0])

    net = Wrapped(lambda net, x: net.conv(x))
    if holds:
        SearchableCNN(net, recipe("bank"), example=batches()[0][0])
        return
    with pytest.raises(ValueError, match="in evaluation mode.*kernel_size of 'conv'"):
        SearchableCNN(net, recipe("bank"), example=batches()[0][0])
