"""Layers that are fixed, named, flagged or typed in ways of their own."""

import copy
import re

import numpy as np
import pytest
import torch
from effconv_core import (
    Budget,
    SearchableCNN,
    SizePlan,
    apply_plan,
    left_alone,
    load,
    recipe,
    save,
    search,
    searched_layers,
)
from effconv_core.engine.train import TrainConfig
from torch import nn

QUICK = recipe("default", epochs=1, least_steps=0, finalists=2)


def conv(c_in=4, c_out=4, taps=3, **changes):
    return nn.Conv2d(c_in, c_out, taps, padding=taps // 2, **changes)


def head(channels=4):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]


def batches(dtype=torch.float32):
    return [(torch.randn(4, 3, 8, 8, dtype=dtype), torch.randint(4, (4,))) for _ in range(3)]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def blur():
    layer = conv(stride=2, groups=4, bias=False)
    row = torch.tensor([1.0, 2, 1])
    layer.weight = nn.Parameter((row[:, None] * row / 16).expand(4, 1, 3, 3).clone(), False)
    return layer


def as_buffer():
    layer = conv(bias=False)
    values = layer.weight.detach()
    del layer.weight
    layer.register_buffer("weight", values)
    return layer


def frozen_with_its_bias():
    return conv().requires_grad_(False)


@pytest.mark.parametrize("fixed", [blur, as_buffer, frozen_with_its_bias])
def test_a_fixed_kernel_is_kept(fixed):
    torch.manual_seed(0)
    model = nn.Sequential(conv(3), fixed(), conv(), *head())
    kernel = model[1].weight.clone()
    assert list(searched_layers(model)) == ["2"]
    assert "fixed kernel" in left_alone(model)["1"]
    plan = search(model, batches(), budget=count(model), config=QUICK)
    searchable = SearchableCNN(model, QUICK)
    for cnn in (apply_plan(model, plan), searchable.warm_start(plan)):
        assert torch.equal(cnn[1].weight, kernel)
        assert not cnn[1].weight.requires_grad


@pytest.mark.parametrize("searched", ["1", ["1"], lambda name, _: name == "1"])
def test_a_fixed_kernel_is_searched_where_it_is_asked_for(searched):
    model = nn.Sequential(conv(3), blur(), conv(), *head())
    assert list(searched_layers(model, searched)) == ["1"]


def test_a_frozen_backbone_is_left_alone_and_its_head_searched():
    backbone = nn.Sequential(conv(3), conv(), conv()).requires_grad_(False)
    model = nn.Sequential(backbone, conv(), *head())
    assert list(searched_layers(model)) == ["1"]
    assert set(left_alone(model)) == {"0.0", "0.1", "0.2"}
    with pytest.raises(ValueError, match="fixed kernel"):
        searched_layers(backbone)


def hooked(model):
    model[1].register_forward_hook(lambda *_: None)


def hooked_backwards(model):
    model[1].register_full_backward_pre_hook(lambda *_: None)


def tied(model):
    model[2].weight = model[1].weight


def buffered(model):
    model[1] = as_buffer()


def normed(model):
    nn.utils.parametrizations.weight_norm(model[1], dim=2)


def other_kernel(model):
    model[1].weight = nn.Parameter(torch.randn(4, 4, 5, 5))


def fewer_channels(model):
    model[1].weight = nn.Parameter(torch.randn(2, 4, 3, 3))


def one_stride(model):
    model[1].stride = 2


def no_channels(model):
    model[1] = nn.Conv2d(4, 0, 3)


def own_bias(model):
    bias = model[1].bias.detach()
    del model[1].bias
    model[1].bias = bias


@pytest.mark.parametrize(
    "change",
    [
        hooked,
        hooked_backwards,
        tied,
        buffered,
        normed,
        own_bias,
        other_kernel,
        fewer_channels,
        one_stride,
        no_channels,
    ],
)
def test_a_plan_for_a_layer_that_is_left_alone_is_refused_with_the_reason(change):
    model = nn.Sequential(conv(3), conv(), conv(), conv())
    change(model)
    reason = left_alone(model)["1"]
    with pytest.raises(ValueError, match=f"'1'.*{re.escape(reason)}"):
        apply_plan(model, {"1": 5})


@pytest.mark.parametrize("persistent", [True, False])
def test_a_bias_that_is_a_buffer_stays_one(persistent):
    torch.manual_seed(0)
    model = nn.Sequential(conv(3), conv(), *head())
    values = model[1].bias.detach()
    del model[1].bias
    model[1].register_buffer("bias", values, persistent)
    searchable = SearchableCNN(model, QUICK)
    plan = searchable.plan(count(model))
    for cnn in (apply_plan(model, plan), searchable.warm_start(plan)):
        assert count(cnn) == plan.cost
        assert "1.bias" in dict(cnn.named_buffers())
        assert ("1.bias" in cnn.state_dict()) == persistent
    searchable.double()
    searchable(torch.zeros(1, 3, 8, 8, dtype=torch.float64))  # the buffer moved with the rest
    cnn = searchable.warm_start(plan)
    assert torch.equal(cnn[1].bias, values.double())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_new_layers_have_the_flags_of_the_old(training, weight, bias, stride, tmp_path):
    model = nn.Sequential(conv(3), conv(stride=stride), *head()).train(training)
    model[1].weight.requires_grad_(weight)
    model[1].bias.requires_grad_(bias)
    searchable = SearchableCNN(model, QUICK, searched="1")
    for size in (4, 5):
        plan = SizePlan({"1": size})
        cnn = apply_plan(model, plan)
        save(cnn, plan, tmp_path / "cnn")
        for found in (cnn, load(model, tmp_path / "cnn"), searchable.warm_start(plan)):
            new = next(m for m in found[1].modules() if isinstance(m, nn.Conv2d))
            assert {m.training for m in found.modules()} == {training}
            assert (new.weight.requires_grad, new.bias.requires_grad) == (weight, bias)


@pytest.mark.parametrize("name", ["mix[3x3]", "a*", "what?", "two words", "größe", "[!x]", "ab"])
def test_a_layer_may_have_any_name(name):
    model = nn.Sequential()
    model.add_module("stem", conv(3))
    model.add_module(name, conv())
    model.add_module("a[b]c", conv())
    model.add_module("end", nn.Sequential(*head()))
    assert list(searched_layers(model)) == [name, "a[b]c"]
    assert list(searched_layers(model, [name])) == [name]
    allowed = {name: range(1, 4)}
    searchable = SearchableCNN(model, QUICK, allowed=allowed, tie=())
    assert searchable.space.ranges == [range(1, 4), range(1, 8)]
    tied = SearchableCNN(model, QUICK, tie=[[name, "a[b]c"]])
    assert tied.space.tied
    assert apply_plan(model, {name: 5}).get_submodule(name).kernel_size == (5, 5)


SCALARS = [np.int64, np.int8, np.uint16, lambda n: torch.tensor(n), lambda n: np.array(n)]


@pytest.mark.parametrize("scalar", SCALARS)
def test_sizes_may_be_integers_of_numpy_and_of_tensors(scalar):
    model = nn.Sequential(conv(3), conv(), *head())
    plan = SizePlan({"1": scalar(5)}, cost=scalar(100))
    assert type(plan["1"]) is type(plan.cost) is int
    assert SizePlan.from_json(plan.to_json()) == plan
    assert apply_plan(model, {"1": (scalar(3), scalar(5))})[1].kernel_size == (3, 5)
    assert recipe("paper", k=scalar(2)) == recipe("paper", k=2)
    assert TrainConfig(epochs=scalar(3)) == TrainConfig(epochs=3)
    searchable = SearchableCNN(model, QUICK)
    images = torch.zeros(1, 3, 8, 8)
    outputs = [searchable.forward_at([size], images) for size in (scalar(3), 3)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("scalar", [np.int64, np.float32, np.float64, torch.tensor, np.array])
def test_budgets_may_be_numbers_of_numpy_and_of_tensors(scalar, tmp_path):
    model, path = nn.Sequential(conv(3), conv(), *head()), tmp_path / "state"
    assert type(Budget(scalar(280)).amount) in (int, float)
    plan = search(model, batches(), budget=scalar(280), config=QUICK, checkpoint=path)
    assert search(model, batches(), budget=280, config=QUICK, checkpoint=path) == plan


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), "5", None, np.array([5])])
def test_what_is_no_number_is_still_refused(value):
    with pytest.raises(TypeError):
        SizePlan({"1": value})
    with pytest.raises(TypeError):
        Budget(value)


@pytest.mark.parametrize(
    ("budget", "shown"), [(0.27, "0.27"), (1.5, "1.5"), (3, "3"), (10**9, "1,000,000,000")]
)
def test_a_refused_budget_is_shown_as_it_is(budget, shown):
    with pytest.raises(ValueError, match=f"budget {shown} cannot"):
        search(nn.Sequential(conv(3), conv()), batches(), budget=budget, config=QUICK)


class To(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, images):
        return images.to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_costs_and_sizes_are_as_in_float32_whatever_the_network_computes_in(dtype):
    model = nn.Sequential(conv(3, 64), conv(64, 64), conv(64, 64), *head(64))
    usual = SearchableCNN(model, QUICK).eval()
    other = SearchableCNN(copy.deepcopy(model).to(dtype), QUICK).eval()
    images = torch.randn(2, 3, 8, 8)
    outputs = usual(images), other(images.to(dtype))
    assert outputs[1].dtype == dtype
    assert torch.allclose(outputs[0], outputs[1].float(), atol=0.05, rtol=0.05)
    assert torch.allclose(usual.soft_sizes, other.soft_sizes.float())
    budgets = [s.budget_loss(count(model)).item() for s in (usual, other)]
    assert budgets[0] == pytest.approx(budgets[1], rel=1e-3)
    cnn = other.warm_start(other.plan())
    assert {p.dtype for p in cnn.parameters()} == {dtype}


def test_layers_of_two_dtypes_are_searched_each_in_its_own():
    model = nn.Sequential(
        conv(3), conv(), To(torch.float64), conv(dtype=torch.float64), *head()[:2]
    ).append(nn.Linear(4, 4, dtype=torch.float64))
    plan = search(model, batches(), budget=count(model), config=QUICK)
    searchable = SearchableCNN(model, QUICK).eval()
    images = batches()[0][0]
    found = searchable.warm_start(plan).eval()
    assert [found[n].weight.dtype for n in (1, 3)] == [torch.float32, torch.float64]
    assert torch.allclose(found(images), searchable.forward_at(plan.values(), images))


def test_float16_is_refused_before_a_step_unless_it_is_frozen():
    steps, model = [], nn.Sequential(conv(3), conv(), *head()).half()
    with pytest.raises(TypeError, match=r"'0\.weight' is torch\.float16"):
        search(model, batches(torch.float16), budget=280, config=QUICK, on_step=steps.append)
    assert not steps
    begin = nn.Sequential(conv(3).half().requires_grad_(False), To(torch.float32))
    mixed = nn.Sequential(begin, conv(), conv(), *head())
    search(mixed, batches(torch.float16), budget=count(mixed), config=QUICK)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_part_is_refused_before_a_step_unless_it_is_frozen():
    model = nn.Sequential(conv(3), conv(), torch.jit.script(conv()), *head())
    with pytest.raises(TypeError, match=r"'2\.weight' cannot be trained"):
        search(model, batches(), config=QUICK)
    model[2] = torch.jit.script(conv().requires_grad_(False))
    assert search(model, batches(), config=QUICK).keys() == {"1"}


def test_what_has_no_values_or_no_real_ones_is_a_sentence():
    lazy = nn.Sequential(conv(3), conv(), nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(ValueError, match=r"'3\.weight' of the Sequential has no shape yet"):
        SearchableCNN(lazy)
    lazy[3] = nn.LazyBatchNorm1d(affine=False)
    with pytest.raises(ValueError, match=r"'3\.running_mean' of the Sequential has no shape yet"):
        SearchableCNN(lazy)
    with pytest.raises(ValueError, match=r"'0\.weight' of the Sequential is on the meta device"):
        SearchableCNN(nn.Sequential(conv(3), conv()).to("meta"))
    half_there = nn.Sequential(conv(3), conv(), nn.BatchNorm2d(4, device="meta"))
    with pytest.raises(ValueError, match=r"'2\.weight' of the Sequential is on the meta device"):
        SearchableCNN(half_there)
    wave = nn.Sequential(conv(3, dtype=torch.cfloat), conv(dtype=torch.cfloat), conv(), conv())
    assert left_alone(wave)["1"] == "computes in complex64"
    with pytest.raises(ValueError, match="complex64"):
        apply_plan(wave, {"1": 5})


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(reduction="none"),
        lambda outputs, targets: outputs,
        lambda outputs, targets: 0.5,
        lambda outputs, targets: {"loss": outputs.mean()},
    ],
)
def test_a_criterion_that_gives_no_one_number_is_a_sentence(criterion):
    model = nn.Sequential(conv(3), conv(), *head())
    with pytest.raises(ValueError, match="the criterion gave"):
        search(model, batches(), budget=280, config=QUICK, criterion=criterion)


class Named(nn.Conv2d):
    """Changes nothing of what is computed."""

    @staticmethod
    def downsampling():
        return 2


class Built(nn.Conv3d):
    """Has a constructor of its own, as torchvision's Conv3DSimple has."""

    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out, (3, 3, 3), padding=1, bias=False)


class Called(nn.Conv2d):
    def __call__(self, images):
        return super().__call__(images).relu()


def test_subclasses_that_change_nothing_are_searched():
    torch.manual_seed(0)
    model = nn.Sequential(conv(3), Named(4, 4, 3, padding=1), Named(4, 4, 1), *head())
    assert list(searched_layers(model)) == ["1"]
    plan = search(model, batches(), budget=count(model), config=QUICK)
    searchable, images = SearchableCNN(model, QUICK).eval(), batches()[0][0]
    found = searchable.warm_start(plan).eval()
    assert torch.allclose(found(images), searchable.forward_at(plan.values(), images), atol=1e-6)
    volumes = nn.Sequential(Built(1, 2), Built(2, 2))
    assert apply_plan(volumes, {"1": 5})(torch.zeros(1, 1, 6, 6, 6)).shape == (1, 2, 6, 6, 6)
    assert list(searched_layers(volumes)) == ["1"]


class Masked(nn.Conv2d):
    def forward(self, images):
        return self._conv_forward(images, self.weight * torch.ones(3, 3).tril(), self.bias)


class Idle(nn.Conv2d):
    def forward(self, images):
        return images.relu()


class Telling(nn.Conv2d):
    def forward(self, images):
        return super().forward(images) * float(images.mean())


class Slotted(nn.Conv2d):
    __slots__ = ("note",)


@pytest.mark.parametrize("kind", [Called, Masked, Idle, Telling, Slotted])
def test_subclasses_that_no_other_size_fits_are_left_alone(kind):
    model = nn.Sequential(conv(3), kind(4, 4, 3, padding=1), conv())
    assert f"is a {kind.__name__}" in left_alone(model)["1"]
    with pytest.raises(ValueError, match=kind.__name__):
        apply_plan(model, {"1": 5})
