"""A CNN is held against the network that was searched, layer by layer."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, apply_plan, recipe, search
from effconv_core.layers.contract import Batch, check_same_network, for_comparison
from effconv_core.layers.conv import predicted
from torch import nn

SIZES = {"1": 5, "3": 2}
IMAGES = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def net(*more):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 1),
        nn.Conv2d(3, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, padding=1),
        *more,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def both(model, sizes=SIZES):
    """The network with predicted kernels, the CNN, and the kernels."""
    reference = copy.deepcopy(model)
    found = apply_plan(reference, sizes, generator=torch.Generator().manual_seed(1))
    kernels = {name: found.get_submodule(name).weight.detach().clone() for name in sizes}
    for name in sizes:
        conv = predicted(reference.get_submodule(name))
        conv.bias.data.copy_(found.get_submodule(name).bias)
        setattr(reference, name, conv)
    return reference, found, kernels


def test_the_same_network_passes_and_draws_as_if_nothing_had_been_run():
    reference, found, kernels = both(net(nn.BatchNorm2d(4), nn.Dropout(0.5)))
    state = torch.get_rng_state()
    labels = torch.tensor([0, 1, 2, 3])
    check_same_network(reference, found, kernels, Batch(IMAGES, labels, F.cross_entropy))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["1", "3"])
@pytest.mark.parametrize("how", ["weight", "bias", "padding"])
def test_a_layer_that_computes_something_else_is_named(name, how):
    reference, found, kernels = both(net())
    conv = found.get_submodule(name)
    with torch.no_grad():
        if how == "weight":
            conv.weight.mul_(1.1)
        elif how == "bias":
            conv.bias.add_(0.1)
        else:
            conv.padding, conv.padding_mode = (0, 0), "zeros"
    with pytest.raises(ValueError, match=f"layer '{name}'"):
        check_same_network(reference, found, kernels, Batch(IMAGES))


def test_a_difference_of_rounding_passes():
    reference, found, kernels = both(net())
    with torch.no_grad():
        found[1].weight.mul_(1 + 1e-6)
    check_same_network(reference, found, kernels, Batch(IMAGES))


def test_a_cnn_that_fails_is_told_with_its_error():
    reference, found, kernels = both(net())
    found[3] = nn.Conv2d(7, 4, 3)
    with pytest.raises(ValueError, match=r"RuntimeError"):
        check_same_network(reference, found, kernels, Batch(IMAGES))


def test_a_layer_that_is_never_run_is_named():
    class Skips(nn.Sequential):
        def forward(self, images):
            return self[1](self[0](images)).mean((2, 3))

    model = Skips(*net())
    reference, found, kernels = both(model)
    with pytest.raises(ValueError, match=r"\['3'\]"):
        check_same_network(reference, found, kernels, Batch(IMAGES))


def test_a_network_that_computes_with_its_layers_size_is_told_the_line():
    class Scales(nn.Sequential):
        def forward(self, images):
            return super().forward(images) * self[1].kernel_size[0]

    reference, found, kernels = both(Scales(*net()))
    with pytest.raises(ValueError, match=r"test_contract\.py:\d+.* kernel_size of '1'"):
        check_same_network(reference, found, kernels, Batch(IMAGES))


def test_padded_kernels_are_compared_too():
    sizes = {"1": 5, "3": 3}
    reference, found, kernels = both(net(), sizes)
    padded = {"1": kernels["1"], "3": F.pad(kernels["3"], (1, 1, 1, 1))}
    check_same_network(reference, found, kernels, Batch(IMAGES), padded=padded)
    reference, found, kernels = both(net(), sizes)
    padded["3"] = F.pad(kernels["3"], (0, 2, 1, 1))  # beside its place
    with pytest.raises(ValueError, match="'3'"):
        check_same_network(reference, found, kernels, Batch(IMAGES), padded=padded)


def test_outputs_in_containers_are_compared_by_name_and_place():
    class Named(nn.Sequential):
        turned = False

        def forward(self, images):
            scores = super().forward(images)
            parts = {"a": [scores, scores * 2], "b": "text"}
            return {"a": parts["a"][::-1], "b": "text"} if self.turned else parts

    reference, found, kernels = both(Named(*net()))
    check_same_network(reference, found, kernels, Batch(IMAGES))
    found.turned = True
    with pytest.raises(ValueError, match="outputs"):
        check_same_network(reference, found, kernels, Batch(IMAGES))


@pytest.mark.parametrize("training", [True, False])
def test_plans_are_compared_without_noise_on_the_batchs_own_statistics(training):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Dropout()

    model = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(), nn.Sequential(nn.Dropout()), Own())
    model.train(training)
    for_comparison(model)
    assert model[0].training == training
    assert not model[1].training
    assert not model[2][0].training
    assert model[3].training == training
    assert not model[3].part.training


def test_outputs_of_another_shape_are_told_with_both():
    class Twice(nn.Sequential):
        twice = False

        def forward(self, images):
            scores = super().forward(images)
            return torch.cat([scores, scores], 1) if self.twice else scores

    reference, found, kernels = both(Twice(*net()))
    found.twice = True
    with pytest.raises(ValueError, match=r"\(4, 8\) .*\(4, 4\)"):
        check_same_network(reference, found, kernels, Batch(IMAGES))


class InTraining(nn.Sequential):
    """A network that cannot be evaluated on a batch."""

    def forward(self, images):
        if not self.training:
            raise NotImplementedError("no evaluation")
        return super().forward(images)


def test_what_cannot_be_evaluated_is_not_compared_there():
    reference, found, kernels = both(InTraining(*net()))
    check_same_network(reference, found, kernels, Batch(IMAGES))


def test_a_cnn_that_can_be_evaluated_is_not_a_network_that_cannot():
    reference, found, kernels = both(InTraining(*net()))
    found.__class__ = nn.Sequential
    with pytest.raises(ValueError, match="no evaluation"):
        check_same_network(reference, found, kernels, Batch(IMAGES))


class Cut(nn.Module):
    """Networks whose loss depends on one layer, or on none, of those that are run."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Conv2d(2, 4, 1), nn.Linear(4, 3)
        self.early, self.late = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.how = how

    def forward(self, x):
        x = self.first(x)
        if self.how == "no_grad":
            with torch.no_grad():
                features = self.early(x)
        else:
            features = self.early(x)
        if self.how == "detach":
            features = features.detach()
        if self.how == "array":
            features = torch.from_numpy(features.detach().numpy().copy())
        extra = self.late(features).mean((2, 3))
        return self.head(extra), extra


@pytest.mark.parametrize(
    ("how", "layer", "criterion"),
    [
        ("no_grad", "early", lambda o, t: F.cross_entropy(o[0], t)),
        ("detach", "early", lambda o, t: F.cross_entropy(o[0], t)),
        ("array", "early", lambda o, t: F.cross_entropy(o[0], t) + o[1].square().mean()),
        ("", "early", lambda o, t: F.cross_entropy(o[0].detach().requires_grad_(), t)),
    ],
)
def test_a_layer_that_the_loss_does_not_teach_is_refused(how, layer, criterion):
    config, steps = recipe("bank", epochs=1, least_steps=0, race_steps=0, finalists=1), []
    loader, options = [(IMAGES, torch.tensor([0, 1, 2, 0]))], {"criterion": criterion}
    with pytest.raises(ValueError, match=rf"\['{layer}'.*leave them out"):
        search(Cut(how), loader, config=config, on_step=steps.append, **options)
    assert not steps
    if how:
        plan = search(Cut(how), loader, config=config, searched=["late"], **options)
        assert set(plan) == {"late"}


def test_the_check_leaves_no_gradient_on_a_criterions_parameters():
    reference, found, kernels = both(net())
    criterion = nn.CrossEntropyLoss()
    criterion.scale = nn.Parameter(torch.ones(()))
    labels = torch.tensor([0, 1, 2, 3])
    batch = Batch(IMAGES, labels, lambda o, t: criterion(o * criterion.scale, t))
    check_same_network(reference, found, kernels, batch)
    assert criterion.scale.grad is None


class Changing(nn.Module):
    """A network that makes, exchanges or replaces what it is of, while it runs."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.scale = nn.Conv2d(2, 4, 1), nn.Parameter(torch.ones(4, 1, 1))
        self.one = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.two = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.how, self.extra = how, None

    def forward(self, x):
        x = self.first(x)
        if self.how == "makes" and self.extra is None:
            self.extra = nn.Conv2d(4, 4, 3, padding=1)
        if self.how == "exchanges":
            self.one, self.two = self.two, self.one
        if self.how == "replaces":
            self.scale = nn.Parameter(self.scale.detach() + 1)
        if self.how == "caches":
            self.register_buffer("grid", torch.linspace(0, 1, x.shape[-1]))
            x, self.pool = x + self.grid, nn.ReLU()
        x = self.two(self.one(x).relu()) * self.scale
        return (x if self.extra is None else self.extra(x)).mean((2, 3))


@pytest.mark.parametrize(
    ("how", "name"), [("makes", "extra.weight"), ("exchanges", "one"), ("replaces", "scale")]
)
def test_a_network_that_changes_what_it_is_of_while_it_runs_is_refused(how, name):
    config, steps = recipe("bank", epochs=1, least_steps=0, race_steps=0, finalists=1), []
    loader = [(IMAGES, torch.tensor([0, 1, 2, 0]))]
    with pytest.raises(ValueError, match=rf"'{name}'.* while it runs"):
        search(Changing(how), loader, config=config, on_step=steps.append)
    assert not steps
    if how == "makes":
        built = Changing(how)
        built(IMAGES)
        assert set(search(built, loader, config=config)) == {"one", "two", "extra"}


def test_a_network_may_make_what_is_not_trained_while_it_runs():
    config = recipe("bank", epochs=1, least_steps=0, race_steps=0, finalists=1)
    plan = search(Changing("caches"), [(IMAGES, torch.tensor([0, 1, 2, 0]))], config=config)
    assert set(plan) == {"one", "two"}


class Looking(Cut):
    """Networks that find out in training that a predicted kernel is no parameter."""

    def forward(self, x):
        x = self.first(x)
        if self.how == "leaf":
            x = self.early(x) * (1 if self.early.weight.is_leaf else 2)
        elif self.how == "parameter":
            x = self.early(x) * len([p for p in self.early.parameters() if p.dim() > 1])
        else:
            x = self.early(x) + copy.deepcopy(self.early)(x)
        return self.head(self.late(x).mean((2, 3)))


@pytest.mark.parametrize("how", ["leaf", "parameter", "copy"])
def test_kernels_in_the_check_are_like_those_of_a_step(how):
    config, steps = recipe("bank", epochs=1, least_steps=0, race_steps=0, finalists=1), []
    loader = [(IMAGES, torch.tensor([0, 1, 2, 0]))]
    with pytest.raises(ValueError, match="another network than the one that is searched"):
        search(Looking(how), loader, config=config, on_step=steps.append)
    assert not steps


HELD = nn.Parameter(torch.ones(4))


class Unregistered(nn.Sequential):
    """Keeps a parameter where `parameters()` does not find it."""

    held = (HELD,)

    def forward(self, x):
        return super().forward(x) * self.held[0].mean()


def penalised(model, outputs, targets):
    return F.cross_entropy(outputs, targets) + model[3].weight.square().sum()


@pytest.mark.parametrize("how", ["list", "class", "model"])
def test_a_loss_of_what_nothing_trains_is_refused_before_the_first_step(how):
    config, steps = recipe("bank", epochs=1, least_steps=0, race_steps=0, finalists=1), []
    model = net() if how == "model" else Unregistered(*net())
    if how == "list":
        model.held = [nn.Parameter(torch.ones(4))]
    criterion = partial(penalised, model) if how == "model" else F.cross_entropy
    loader = [(IMAGES, torch.tensor([0, 1, 2, 0]))]
    with pytest.raises(ValueError, match="'3.weight'" if how == "model" else "shape .4,"):
        search(model, loader, config=config, criterion=criterion, on_step=steps.append)
    assert not steps


def test_a_loss_may_depend_on_what_is_trained_or_fixed():
    config = recipe("bank", epochs=1, least_steps=0, race_steps=0, finalists=1)
    model = Unregistered(*net())
    model.held = [nn.Parameter(torch.ones(4), requires_grad=False)]
    searchable, own = SearchableCNN(model, config), nn.Parameter(torch.ones(3))

    def criterion(outputs, targets):
        others = sum(p.square().sum() for p in searchable.kernel_predictor.parameters())
        return F.cross_entropy(outputs, targets) + others + own.sum()

    loader = [(IMAGES, torch.tensor([0, 1, 2, 0]))]
    assert set(search(searchable, loader, criterion=criterion)) == {"1", "3"}
    assert own.grad is not None
