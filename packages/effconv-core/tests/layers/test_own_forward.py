"""Convolutions of a class with a forward of its own keep it, at every size that it can have."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from effconv_core import (
    Latency,
    SearchableCNN,
    apply_plan,
    left_alone,
    load,
    recipe,
    save,
    search,
)
from torch import nn


class Standardised(nn.Conv2d):
    """Its kernels have mean 0 and variance 1, and a gain."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.eps, self.gain = 1e-6, nn.Parameter(torch.full((self.out_channels, 1, 1, 1), 0.5))

    def forward(self, images):
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        kernel = self.gain * (self.weight - mean) / (variance + self.eps).sqrt()
        return F.conv2d(images, kernel, self.bias, self.stride, self.padding, groups=self.groups)


class Same(nn.Conv2d):
    """Pads as its input needs, by its kernel size."""

    def forward(self, images):
        sides = []
        for n, k, s in zip(images.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            more = max((-(-n // s) - 1) * s + k - n, 0)
            sides += [more // 2, more - more // 2]
        return F.conv2d(F.pad(images, sides), self.weight, self.bias, self.stride)


class Static(nn.Conv2d):
    """Pads by a module of its own, whatever its kernel is."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, images):
        return F.conv2d(self.pad(images), self.weight, self.bias, self.stride, self.padding)


class Activated(nn.Conv2d):
    """Has a normalisation, a buffer and a function of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.norm, self.act = nn.BatchNorm2d(self.out_channels), torch.relu
        self.register_buffer("scale", torch.full((1,), 2.0))

    def forward(self, images):
        return self.act(self.norm(super().forward(images))) * self.scale


class Centred(nn.Conv2d):
    def _conv_forward(self, images, weight, bias):
        return super()._conv_forward(images, weight - weight.mean(), bias)


class Causal(nn.Conv1d):
    def forward(self, images):
        return super().forward(F.pad(images, (self.kernel_size[0] - 1, 0)))


class Named(nn.Conv2d):
    def norm(self):
        return self.weight.norm()


LAYERS = {
    "standardised": (lambda: Standardised(4, 4, 3, padding=1, groups=2), range(1, 8)),
    "standardised, strided": (lambda: Standardised(4, 4, 3, 2, 1), range(1, 8, 2)),
    "same": (lambda: Same(4, 4, 3, 2), range(1, 8)),
    "static": (lambda: Static(4, 4, 3, 2), range(3, 8, 2)),
    "activated": (lambda: Activated(4, 4, 4, 2, 1), range(1, 8)),
    "centred": (lambda: Centred(4, 4, 3, padding=1, padding_mode="reflect"), range(1, 8)),
    "causal": (lambda: Causal(4, 4, 3), range(1, 8)),
    "plain": (lambda: Named(4, 4, 3, padding=1), range(1, 8)),
}


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.flat = isinstance(layer, nn.Conv1d)
        self.stem, self.conv, self.fc = nn.Conv2d(3, 4, 1), layer, nn.Linear(4, 3)

    def forward(self, images):
        features = self.stem(images).relu()
        features = self.conv(features.flatten(2) if self.flat else features)
        features = features.flatten(2).mean(2)
        return self.fc(features / self.conv.norm() if isinstance(self.conv, Named) else features)


def net(name):
    torch.manual_seed(0)
    return Net(LAYERS[name][0]())


def batches():
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 1, 2, 0])
    return [(torch.randn(4, 3, 12, 13, generator=generator), labels) for _ in range(4)]


QUICK = recipe("bank", epochs=1, least_steps=0, race_steps=1, finalists=2)


@pytest.mark.parametrize("name", LAYERS)
def test_a_forward_of_its_own_is_kept_at_every_size(name, tmp_path):
    model, (x, _), sizes = net(name), batches()[0], LAYERS[name][1]
    searchable = SearchableCNN(model, QUICK)
    assert searchable.space.ranges == [sizes]
    plan = search(searchable, batches())
    shape, kind = (
        model.conv(torch.zeros(1, 4, *([12] if model.flat else [12, 13]))).shape,
        type(model.conv),
    )
    for size in sizes:
        cnn = searchable.warm_start({"conv": size}).eval()
        assert type(cnn.conv) is kind
        assert cnn.conv.weight.shape[2:] == cnn.conv.kernel_size
        assert set(cnn.conv.kernel_size) == {size}
        searchable.eval()
        torch.testing.assert_close(cnn(x), searchable.forward_at([size], x))
        assert sum(p.numel() for p in cnn.parameters()) == searchable.cost([size])
        assert cnn.conv(torch.zeros(1, 4, *([12] if model.flat else [12, 13]))).shape == shape
    fresh = apply_plan(model, plan, example=x)
    fresh(x).sum().backward()
    assert all(p.grad is not None for p in fresh.parameters())
    save(fresh, plan, tmp_path / "cnn.safetensors")
    again = load(model, tmp_path / "cnn.safetensors")
    torch.testing.assert_close(again.eval()(x), fresh.eval()(x))


@pytest.mark.parametrize("name", LAYERS)
def test_a_searched_layer_is_copied_and_pickled(name):
    searchable, (x, _) = SearchableCNN(net(name), QUICK).eval(), batches()[0]
    for other in (copy.deepcopy(searchable), pickle.loads(pickle.dumps(searchable))):
        assert type(other.model.conv) is type(searchable.model.conv)
        assert isinstance(other.model.conv, type(net(name).conv))
        torch.testing.assert_close(other(x), searchable(x))


def test_what_a_class_has_of_its_own_is_trained():
    searchable = SearchableCNN(net("standardised"), QUICK)
    before = searchable.model.conv.gain.clone()
    search(searchable, batches())
    assert not torch.equal(before, searchable.model.conv.gain)
    assert not torch.equal(before, searchable.warm_start({"conv": 5}).conv.gain)


def test_a_size_that_a_forward_cannot_have_is_refused():
    model = net("static")
    for allowed in (range(1, 8, 2), range(3, 6)):
        with pytest.raises(ValueError, match="Static"):
            search(model, batches(), config=QUICK, allowed=allowed)
    with pytest.raises(ValueError, match="conv"):
        apply_plan(model, {"conv": 4})
    assert "conv" not in left_alone(model)


def test_time_is_measured_on_the_layer_itself():
    cost = Latency(batches()[0][0], repetitions=1, warmups=0)(SearchableCNN(net("same"), QUICK))
    assert cost([7]) > 0


@pytest.mark.parametrize("attribute", ["kind", "kernel", "trainable"])
def test_a_layer_with_a_searched_layer_s_attribute_is_left_alone(attribute):
    class Attributed(nn.Conv2d):
        def __init__(self):
            super().__init__(4, 4, 3, padding=1)
            setattr(self, attribute, "depthwise")

        def forward(self, images):
            return super().forward(images) * len(getattr(self, attribute))

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Attributed(), nn.Conv2d(4, 4, 3))
    assert attribute in left_alone(model)["1"]
    with pytest.raises(ValueError, match=attribute):
        apply_plan(model, {"1": 5})
    found = apply_plan(model, {"2": 5}, example=torch.zeros(1, 3, 9, 9))
    assert getattr(found[1], attribute) == "depthwise"


def test_a_forward_that_zeros_around_the_kernel_change_is_refused_for_padded_shapes():
    config = recipe("bank", epochs=1, least_steps=0, shapes="padded")
    with pytest.raises(ValueError, match="exact"):
        search(net("standardised"), batches(), config=config)
    assert SearchableCNN(net("causal"), config, example=batches()[0][0]).layers == ["conv"]


def test_a_trial_of_a_layer_draws_no_numbers():
    class Drawing(nn.Conv2d):
        def forward(self, images):
            return super().forward(images) * torch.rand(()).to(images.device)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Drawing(4, 4, 3), nn.Conv2d(4, 4, 3))
    before = torch.get_rng_state()
    assert "1" not in left_alone(model)
    assert torch.equal(torch.get_rng_state(), before)
