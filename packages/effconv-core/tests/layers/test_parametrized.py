"""Layers whose weight is computed by parametrizations: the kernel passes through them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from effconv_core import (
    SearchableCNN,
    SizePlan,
    apply_plan,
    load,
    recipe,
    save,
    search,
    searched_layers,
)
from torch import nn
from torch.nn.utils import parametrizations, parametrize

IMAGES = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(1))
LOADER = [(IMAGES, torch.tensor([0, 1, 2, 0]))] * 2
QUICK = {"epochs": 1, "least_steps": 0, "race_steps": 0, "finalists": 2, "exploration": 1.0}


class Scaled(nn.Module):
    """Has a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((4, 1, 1, 1), 0.5))

    def forward(self, kernel):
        return self.scale * kernel


class Positive(nn.Module):
    """Has an inverse, which loses signs."""

    def forward(self, kernel):
        return kernel.exp() / 10

    def right_inverse(self, kernel):
        return kernel.abs().mul(10).log()


class Added(nn.Module):
    """Has a parameter of the kernel's size, as that of a low-rank update."""

    def __init__(self):
        super().__init__()
        self.change = nn.Parameter(torch.zeros(4, 4, 3, 3))

    def forward(self, kernel):
        return kernel + self.change


class Telling(nn.Module):
    """Depends on values, not on shapes alone."""

    def forward(self, kernel):
        return kernel / kernel.abs().max().item()


class Flattened(nn.Module):
    def forward(self, kernel):
        return kernel.flatten(1)[:, :9].view(4, 1, 3, 3).expand(4, 4, 3, 3)


def conv():
    return nn.Conv2d(4, 4, 3, padding=1)


def own(*parts):
    layer = conv()
    for part in parts:
        parametrize.register_parametrization(layer, "weight", part)
    return layer


def doubly():
    return parametrizations.spectral_norm(own(Scaled()))


SEARCHED = {
    "weight norm": lambda: parametrizations.weight_norm(conv()),
    "one norm": lambda: parametrizations.weight_norm(conv(), dim=None),
    "spectral norm": lambda: parametrizations.spectral_norm(conv()),
    "of one's own": lambda: own(Scaled()),
    "positive": lambda: own(Positive()),
    "in a chain": doubly,
    "transposed": lambda: parametrizations.weight_norm(nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)),
}


def network(make):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        make(),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


@pytest.mark.parametrize("way", SEARCHED)
def test_what_is_found_is_what_was_searched(way, tmp_path):
    model = network(SEARCHED[way])
    before = copy.deepcopy(model.state_dict())
    searchable = SearchableCNN(model, recipe("bank", **QUICK))
    plan = search(searchable, LOADER)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for size in (2, plan["1"], 5):
        cnn = searchable.warm_start({"1": size}, example=IMAGES)
        assert type(cnn[1]) is type(model[1])
        assert cnn[1].kernel_size == (size, size)
        for mode in (True, False):
            wanted = searchable.train(mode).forward_at([size], IMAGES)
            torch.testing.assert_close(cnn.train(mode)(IMAGES), wanted, rtol=1e-5, atol=1e-5)
        assert sum(p.numel() for p in cnn.parameters()) == searchable.cost([size])
    fresh = apply_plan(model, {"1": 5}, example=IMAGES)
    assert fresh.state_dict().keys() == model.state_dict().keys()
    fresh(IMAGES).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in fresh.parameters())
    save(fresh, SizePlan({"1": 5}), tmp_path / "cnn.safetensors")
    again = load(model, tmp_path / "cnn.safetensors", example=IMAGES)
    assert torch.equal(again.eval()(IMAGES), fresh.eval()(IMAGES))


@pytest.mark.parametrize("way", ["weight norm", "spectral norm", "in a chain"])
def test_padded_kernels_are_normed_as_exact_ones(way):
    model = network(SEARCHED[way])
    SearchableCNN(model, recipe("bank", shapes="padded"), example=IMAGES)


def test_what_norms_zeros_too_needs_exact_shapes():
    with pytest.raises(ValueError, match="shapes='exact'"):
        SearchableCNN(
            network(lambda: own(Positive())), recipe("bank", shapes="padded"), example=IMAGES
        )


def test_the_scales_of_weight_norm_are_trained_and_the_kernel_normed():
    model = network(SEARCHED["weight norm"])
    searchable = SearchableCNN(model, recipe("bank", **QUICK))
    search(searchable, LOADER)
    cnn = searchable.warm_start({"1": 4})
    scales = cnn[1].parametrizations.weight.original0
    assert not torch.equal(scales, model[1].parametrizations.weight.original0)
    kernel = searchable.kernels_at([4])[0]
    expected = scales * F.normalize(kernel.flatten(1)).view_as(kernel)
    torch.testing.assert_close(cnn[1].weight, expected)


def test_a_frozen_part_stays_frozen():
    model = network(SEARCHED["weight norm"])
    model[1].parametrizations.weight.original0.requires_grad_(False)
    searchable = SearchableCNN(model, recipe("bank", **QUICK))
    for cnn in (searchable.warm_start({"1": 5}), apply_plan(model, {"1": 5})):
        parts = cnn[1].parametrizations.weight
        assert (parts.original0.requires_grad, parts.original1.requires_grad) == (False, True)
    model[1].parametrizations.weight.original1.requires_grad_(False)
    with pytest.raises(ValueError, match="fixed kernel"):
        searched_layers(model)


def test_a_spectrally_normed_layer_trains_on():
    model = network(SEARCHED["spectral norm"])
    searchable = SearchableCNN(model, recipe("bank", **QUICK))
    search(searchable, LOADER)
    cnn = searchable.warm_start({"1": 5})
    for _ in range(30):
        cnn(IMAGES)
    top = torch.linalg.matrix_norm(cnn.eval()[1].weight.flatten(1), 2)
    assert top.item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("part", [Added, Telling, Flattened, "rows", "a bias", "tied"])
def test_what_takes_no_other_size_is_left_alone(part):
    if part == "rows":  # a scale for each row of taps
        layer = parametrizations.weight_norm(conv(), dim=2)
    elif part == "a bias":
        layer = conv()
        parametrize.register_parametrization(layer, "bias", nn.Identity())
    elif part == "tied":
        layer = nn.Sequential(own(Scaled()), own(Scaled()))
        first, second = (one.parametrizations.weight for one in layer)
        second.original = first.original
    else:
        layer = conv()
        parametrize.register_parametrization(layer, "weight", part(), unsafe=True)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, conv())
    assert list(searched_layers(model)) == ["2"]
    assert SearchableCNN(model, example=IMAGES).layers == ["2"]
