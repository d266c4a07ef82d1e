"""Padded kernels: the same convolutions in shapes that never change, and no size on the host."""

import contextlib
import copy

import pytest
import torch
from effconv_core import Budget, Macs, SearchableCNN, SearchConfig, recipe, search
from effconv_core.config import RECIPES
from effconv_core.layers.conv import PredictedConv
from effconv_core.method.kernel_bank import window_of
from effconv_core.method.kernel_predictor import kernel_predictor
from effconv_core.method.static_shapes import Padding
from effconv_core.space.rounding import nearest_size, size_above
from effconv_core.space.search_space import Layer, SizeSpace
from torch import nn

MIXED = SizeSpace(
    [
        Layer("line", (4, 3), range(1, 8), (0,)),
        Layer("square", (2, 6)),
        Layer("depthwise", (6, 1), range(1, 8), (0, 0), groups=6),
        Layer("cube", (2, 2), range(1, 6), (0, 0, 0)),
        Layer("row", (3, 2), range(1, 8), (None, 0)),
        Layer("apart", (2, 2), range(1, 8), (0, 1)),
        Layer("odd", (5, 2), range(1, 8, 2)),
        Layer("even", (2, 3), range(2, 9, 2)),
    ]
)
CHOICES = [
    [5, 3, 2, 3, 4, 2, 5, 3, 4],
    [1, 1, 1, 1, 1, 1, 7, 1, 2],
    [7, 7, 7, 5, 7, 7, 7, 7, 8],
    [6, 4, 6, 2, 2, 4, 3, 5, 6],
]


def embedded(kernel, extents):
    """Put a kernel where its window lies in zeros of the largest size."""
    padded = kernel.new_zeros(*kernel.shape[:2], *extents)
    windows = [window_of(n, largest) for n, largest in zip(kernel.shape[2:], extents)]
    padded[(slice(None), slice(None), *windows)] = kernel
    return padded


@pytest.mark.parametrize("allowed", [range(1, 8), range(1, 32, 2), range(2, 12, 3), range(4, 5)])
def test_rounding_on_the_device_is_that_on_the_host(allowed):
    padding = Padding(SizeSpace([Layer("one", (1, 1), allowed)]))
    soft_sizes = torch.arange(8 * allowed[0], 8 * allowed[-1] + 1) / 8  # halves among them
    nearest = torch.cat([padding.nearest(v.view(1)) for v in soft_sizes])
    above = torch.cat([padding.above(v.view(1)) for v in soft_sizes])
    assert nearest.tolist() == [nearest_size(v, allowed) for v in soft_sizes.tolist()]
    assert above.tolist() == [size_above(v, allowed) for v in soft_sizes.tolist()]


def both_forms(form, changes, soft_sizes, sizes):
    """Give the exact kernels and the padded ones of one predictor, with all gradients of each."""
    torch.manual_seed(0)
    config = SearchConfig(kernel_form=form, kernel_hidden=5, **changes)
    predictor = kernel_predictor(MIXED, config, torch.Generator().manual_seed(0)).double()
    padding, drawn = Padding(MIXED).double(), None
    if config.mask == "ring":
        drawn = torch.rand(len(sizes), dtype=torch.float64)
        predictor.draws.forward = lambda _: drawn
    soft = [soft_sizes.clone().requires_grad_() for _ in range(2)]
    exact = predictor(soft[0], sizes)
    padded = predictor.padded(soft[1], torch.tensor(sizes).double(), padding, drawn)
    weights = [torch.randn(layer.channels[0], 1, dtype=torch.float64) for layer in MIXED.layers]
    grads = []
    for kernels, values in zip((exact, padded), soft):
        loss = sum(((k.flatten(1) + 0.5).square() * w).sum() for k, w in zip(kernels, weights))
        grads.append(torch.autograd.grad(loss, [values, *predictor.parameters()]))
    return exact, padded, grads


@pytest.mark.parametrize("sizes", CHOICES, ids=str)
@pytest.mark.parametrize(
    ("form", "changes"),
    [
        ("projected", {}),
        ("projected", {"centre": "aligned"}),
        ("literal", {}),
        ("bank", {}),
        ("bank", {"mask": "ring"}),
    ],
    ids=str,
)
def test_padded_kernels_are_the_exact_ones_in_zeros_with_the_same_gradients(form, changes, sizes):
    steps = torch.tensor([allowed.step for allowed in MIXED.ranges], dtype=torch.float64)
    # Below each size by a part of a step, as a ring has it; half of it is within rounding.
    soft_sizes = torch.tensor(sizes, dtype=torch.float64) - 0.3 * steps
    exact, padded, grads = both_forms(form, changes, soft_sizes, sizes)
    for place, (kernel, other) in enumerate(zip(exact, padded)):
        expected = embedded(kernel, MIXED.extents(place))
        torch.testing.assert_close(other, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-12, atol=1e-12)
    assert grads[0][0].abs().sum() > 0


CONVS = {
    "same": nn.Conv2d(4, 6, 3, padding=1),
    "stride": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "groups": nn.Conv2d(4, 6, 5, padding=2, groups=2),
    "depthwise, strided": nn.Conv2d(4, 4, 4, stride=3, padding=1, groups=4),
    "crops": nn.Conv2d(4, 6, 7, bias=False),
    "word": nn.Conv2d(4, 6, 4, padding="same"),
    "reflected": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "circular, strided": nn.Conv2d(4, 6, 5, stride=2, padding=0, padding_mode="circular"),
    "line": nn.Conv1d(4, 6, 3, stride=2, padding=1),
    "cube": nn.Conv3d(4, 6, 3, padding=1),
    "dilated": nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    "dilated, strided": nn.Conv2d(4, 6, 5, stride=2, padding=3, dilation=(3, 2)),
}


@pytest.mark.parametrize("largest", [7, 8])
@pytest.mark.parametrize("name", CONVS)
def test_a_convolution_with_zeros_around_its_kernel_is_the_same(name, largest):
    conv = PredictedConv(copy.deepcopy(CONVS[name])).double()
    axes = len(conv.kernel_size)
    space = {1: (40,), 2: (19, 22), 3: (6, 7, 5)}[axes]
    torch.manual_seed(0)
    images = torch.randn(2, 4, *space, dtype=torch.float64, requires_grad=True)
    dilated = max(conv.dilation) > 1
    for size in range(2 - largest % 2, largest + 1, 2) if dilated else range(1, largest + 1):
        taps = (size,) * axes
        kernel = torch.randn(conv.out_channels, 4 // conv.groups, *taps, dtype=torch.float64)
        kernel.requires_grad_()
        results = []
        for conv.kernel in (kernel, embedded(kernel, (largest,) * axes)):
            output = conv(images)
            upstream = torch.linspace(-1, 1, output.numel(), dtype=torch.float64)
            grads = torch.autograd.grad(output, (images, kernel), upstream.view_as(output))
            results.append((output, *grads))
        torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


def test_a_dilated_layer_with_even_and_odd_sizes_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=2, dilation=2))
    with pytest.raises(ValueError, match=r"layer '1' has dilation \(2, 2\) with even and odd"):
        SearchableCNN(net, recipe("bank", shapes="padded"))
    odd = SearchableCNN(net, recipe("bank", shapes="padded"), allowed=range(1, 8, 2))
    assert odd(torch.zeros(1, 3, 30, 30)).shape == net(torch.zeros(1, 3, 30, 30)).shape


@pytest.mark.parametrize(
    ("size", "padding", "more", "holds"), [(3, 1, 0, False), (3, 1, 1, True), (4, 1, 0, True)]
)
def test_a_transposed_layer_whose_windows_would_move_is_refused(size, padding, more, holds):
    conv = nn.ConvTranspose2d(4, 4, size, 2, padding, more)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), conv)
    config = recipe("bank", shapes="padded")
    if not holds:
        with pytest.raises(ValueError, match="layer '1' is transposed with even and odd sizes"):
            SearchableCNN(net, config)
    allowed = range(1, 8) if holds else range(1, 8, 2)
    searchable = SearchableCNN(net, config, allowed=allowed)
    conv = searchable.convs[0].double()
    images = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    for taps in allowed:
        kernel = torch.randn(4, 4, taps, taps, dtype=torch.float64)
        conv.kernel = kernel
        wanted = conv(images)
        conv.kernel = embedded(kernel, (7, 7))
        torch.testing.assert_close(conv(images), wanted, rtol=1e-12, atol=1e-12)


class Varied(nn.Module):
    """Strides, groups, a line beside squares, and a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.down = nn.Conv2d(6, 8, 4, stride=2, padding=1, groups=2)
        self.row = nn.Conv2d(8, 8, (1, 5), padding=(0, 2))
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.norm(x + self.shared(self.shared(x).relu()))
        x = self.row(self.down(x).relu()).relu()
        return {"scores": self.fc(x.mean((2, 3)))}


def varied(seed=0):
    torch.manual_seed(seed)
    return Varied()


def batches(count=4, seed=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        labels = torch.randint(3, (8,), generator=generator)
        images = torch.randn(8, 3, 14, 14, generator=generator)
        found.append(((images + labels.view(-1, 1, 1, 1)).to(dtype), labels))
    return found


def criterion(outputs, labels):
    return nn.functional.cross_entropy(outputs["scores"], labels)


KINDS = {
    "paper": RECIPES["paper"],
    "default": RECIPES["default"],
    "literal": recipe("paper", kernel_form="literal", budget_form="smooth"),
    "explored": recipe("bank", mask="gaussian", exploration=1.5),
}


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        *((name, {}) for name in KINDS),
        *((name, {"per_axis": True}) for name in ("paper", "default", "literal")),
        ("default", {"tie": [["shared", "down"]]}),
    ],
    ids=str,
)
def test_a_padded_step_is_the_exact_one(name, ways):
    steps = []
    for shapes in ("exact", "padded"):
        config = recipe("paper", **{**vars(KINDS[name]), "shapes": shapes, "b": -0.2})
        searchable = SearchableCNN(varied(), config, **ways).double().train()
        optimizer = torch.optim.SGD(searchable.parameters(), 0.05)
        seen = []
        for images, labels in batches(6, dtype=torch.float64):
            outputs = searchable(images)["scores"]
            budget_loss = searchable.budget_loss(
                searchable.cost([5] * len(searchable.space.ranges))
            )
            optimizer.zero_grad()
            (criterion({"scores": outputs}, labels) + budget_loss).backward()
            optimizer.step()
            grads = [p.grad for p in searchable.parameters() if p.grad is not None]
            seen.append((outputs, budget_loss, searchable.soft_sizes, *grads))
            seen[-1] += (torch.tensor(searchable.sizes),)
        steps.append(seen)
        searchable.eval()
        steps[-1].append((searchable(images)["scores"],))  # exact with either
    exact, padded = steps
    assert len({tuple(step[-1].tolist()) for step in exact[:-1]}) > 1  # from 3.4 upwards
    # Rounding of the first step grows over six.
    torch.testing.assert_close(padded, exact, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", KINDS)
def test_a_padded_step_never_needs_a_number_on_the_host(name, monkeypatch):
    # A tensor on the meta device has none to give. Autocast does not know that device.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    config = recipe("paper", **{**vars(KINDS[name]), "shapes": "padded"})
    searchable = SearchableCNN(varied(), config, tie=[["shared", "down"]]).train()
    macs = Macs(torch.zeros(1, 3, 14, 14))
    budgets = [Budget(1500), Budget(1e5, macs, at_most=True)]
    searchable.constraints(budgets)  # counts once, on the host
    searchable.to("meta")
    optimizer = torch.optim.SGD(searchable.parameters(), 0.05)
    images, labels = torch.empty(8, 3, 14, 14, device="meta"), torch.empty(8, device="meta").long()
    loss = criterion(searchable(images), labels)
    loss = loss + searchable.budget_loss(budgets)
    loss.backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="meta tensor"):
        _ = searchable.sizes
    exact = SearchableCNN(varied(), KINDS[name]).to("meta").train()
    with pytest.raises(RuntimeError, match="meta tensor"):
        exact(images)


@pytest.mark.parametrize(
    ("name", "epochs"),
    [("paper", 3), ("default", 3), pytest.param("default", 75, marks=pytest.mark.long)],
)
def test_a_padded_search_finds_the_plan_of_the_exact_one(name, epochs):
    def found(**changes):
        # In float64, because the rounding of float32 grows over a search.
        config = recipe(name, epochs=epochs, least_steps=0, size_lr=0.05, **changes)
        model = varied().double()
        loader = batches(dtype=torch.float64)
        return search(model, loader, budget=1500, config=config, criterion=criterion)

    exact, padded = found(), found(shapes="padded")
    assert exact.sizes == padded.sizes
    assert padded.soft_sizes == pytest.approx(exact.soft_sizes, rel=1e-9 if epochs == 3 else 1e-4)
    assert set(exact.values()) != {3}
    assert found(seed=1).soft_sizes != pytest.approx(exact.soft_sizes, rel=1e-3)


def test_a_padded_search_that_was_interrupted_goes_on_to_the_same_plan(tmp_path):
    class Interrupted(list):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            if self.epoch == 1:
                raise KeyboardInterrupt
            return super().__iter__()

    short = {"epochs": 2, "least_steps": 0, "size_lr": 0.05, "finalists": 4}
    config = recipe("bank", shapes="padded", precision="bfloat16", **short)
    keywords = {"budget": 1500, "config": config, "criterion": criterion}
    straight = search(varied(), batches(), **keywords)
    keywords["checkpoint"] = tmp_path / "s.safetensors"
    with pytest.raises(KeyboardInterrupt):
        search(varied(), Interrupted(batches()), **keywords)
    exact = {**keywords, "config": recipe("bank", **short)}
    with pytest.raises(ValueError, match=r"whose config was .* delete it to start again"):
        search(varied(), batches(), **exact)
    assert search(varied(), batches(), **keywords) == straight


@pytest.mark.parametrize("shapes", ["exact", "padded"])
@pytest.mark.parametrize("name", ["paper", "default"])
def test_bfloat16_is_the_cnns_alone(name, shapes):
    config = recipe(name, shapes=shapes, precision="bfloat16")
    searchable = SearchableCNN(varied(), config).train()
    seen, handed = set(), set()

    def look(conv, arguments, output):
        handed.update((conv.kernel.dtype, tuple(conv.kernel.shape[2:])))
        seen.add(output.dtype)

    searchable.model.shared.register_forward_hook(look)
    images, labels = batches(1)[0]
    outputs = searchable(images)
    assert seen == {torch.bfloat16}
    assert torch.float32 in handed
    assert ((7, 7) in handed) == (shapes == "padded")
    assert outputs["scores"].dtype == searchable.soft_sizes.dtype == torch.float32
    (criterion(outputs, labels) + searchable.budget_loss(1500)).backward()
    assert {p.grad.dtype for p in searchable.parameters() if p.grad is not None} == {torch.float32}
    usual = SearchableCNN(varied(), recipe(name, shapes=shapes)).train()
    scores = usual(images)["scores"]
    assert not torch.equal(scores, outputs["scores"])
    # bfloat16 has 8 bits: 0.4 % a rounding, over a few layers of values around 1.
    torch.testing.assert_close(outputs["scores"], scores, rtol=0, atol=0.05)
    seen.clear()
    searchable.eval()(images)
    assert seen == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"precision": "float16"}, "precision is 'float16'; pass 'float32' or 'bfloat16'"),
        ({"shapes": "dynamic"}, "shapes is 'dynamic'; pass 'exact' or 'padded'"),
        ({"compile": True}, "compile is True and shapes is 'exact'.*pass shapes='padded'"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        recipe("bank", **changes)


def test_values_that_are_not_finite_stop_a_padded_search_and_are_told_of():
    images, labels = batches(1)[0]
    config = recipe("bank", shapes="padded")
    broken = [(images, labels), (images * float("nan"), labels)]
    with pytest.raises(FloatingPointError, match="the loader gave inputs that are not finite"):
        search(varied(), broken, budget=1500, config=config, criterion=criterion)
    searchable = SearchableCNN(varied(), config).train()
    with torch.no_grad():
        searchable.size_predictor.head_bias[1] = float("nan")
    searchable(images)
    with pytest.raises(FloatingPointError, match="soft size of layer 'down' is nan"):
        _ = searchable.sizes


def test_sizes_and_cost_of_a_step_are_made_when_they_are_read(monkeypatch):
    steps, reads = [], []
    usual = SearchableCNN.rounded
    monkeypatch.setattr(SearchableCNN, "rounded", lambda *a: reads.append(1) or usual(*a))
    config = recipe("bank", shapes="padded", epochs=5, least_steps=0, size_lr=0.1)
    searchable = SearchableCNN(varied(), config)
    plan = search(searchable, batches(), budget=1500, criterion=criterion, on_step=steps.append)
    assert not reads
    soft = [step.soft_sizes.tolist() for step in steps]
    assert [step.sizes for step in steps] == [searchable.space.rounded(v) for v in soft]
    assert [step.cost for step in steps] == [searchable.cost(step.sizes) for step in steps]
    assert len(reads) == len(steps)
    assert len({tuple(step.sizes) for step in steps}) > 1
    assert set(plan) == {"shared", "down", "row"}
