"""Searches through `torch.compile`: one graph for all sizes, and the plan of one without it."""

import copy
import pickle
from collections import Counter

import pytest
import torch
from effconv_core import SearchableCNN, recipe, search
from effconv_core.rng import Draws
from effconv_kernels import eager
from torch import nn
from torch._dynamo.utils import counters

BUDGET = 1500


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def batches(device="cpu", count=6):
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        labels = torch.randint(3, (8,), generator=generator)
        images = torch.randn(8, 1, 9, 9, generator=generator) + labels.view(-1, 1, 1, 1)
        found.append((images.to(device), labels.to(device)))
    return found


@pytest.fixture
def fresh():
    """Compile anew, and count from zero."""
    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()


def graphs_of(searchable, steps):
    """Take steps; give the tuples of sizes that were drawn, and how many graphs were made."""
    source, seen = searchable.kernel_predictor.forward, set()

    def spy(soft_sizes, sizes):
        seen.add(tuple(sizes))
        return source(soft_sizes, sizes)

    searchable.kernel_predictor.forward = spy
    for images, labels in batches(count=steps):
        loss = nn.functional.cross_entropy(searchable(images), labels)
        (loss + searchable.budget_loss(BUDGET)).backward()
    return seen, counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("name", [pytest.param("paper", marks=pytest.mark.long), "default"])
def test_a_padded_step_is_one_graph_whatever_the_sizes(name, fresh, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, mode: compile_(f, backend="aot_eager", fullgraph=True)
    )
    changes = {"shapes": "padded", "size_lr": 0.3}
    close = {}
    if name == "paper":
        changes["exploration"] = 2.0
    else:
        changes["precision"] = "bfloat16"
        close = {"rtol": 0, "atol": 0.02}  # scores below 1, of which one rounding is 0.004
    plain = SearchableCNN(net(), recipe(name, **changes)).train()
    compiled = SearchableCNN(net(), recipe(name, **changes, compile=True)).train()
    for images, _ in batches():
        expected, found = plain(images), compiled(images)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, **close)
        assert torch.equal(compiled.soft_sizes, plain.soft_sizes)
    assert counters["stats"]["unique_graphs"] == 1
    # Evaluation and copies run as they are.
    copied = copy.deepcopy(compiled).eval()
    torch.testing.assert_close(copied(images), plain.eval()(images))
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(
    ("name", "changes"), [("paper", {}), ("default", {}), ("paper", {"kernel_form": "literal"})]
)
def test_the_operators_have_their_tables_before_a_step_is_compiled(name, changes, monkeypatch):
    # A table that is made in a CUDA graph's first call lies in the graph's memory, which
    # PyTorch's check_memory_pool refuses.
    unroll, made, late = eager.gru_unroll, set(), set()

    def spy(gates, weight, bias, steps, *more):
        made.add(tuple(steps))
        return unroll(gates, weight, bias, steps, *more)

    def compile_(function, mode):
        def compiled(*arguments):
            before = set(made)
            found = function(*arguments)
            late.update(made - before)
            return found

        return compiled

    monkeypatch.setattr(eager, "gru_unroll", spy)
    monkeypatch.setattr(torch, "compile", compile_)
    config = recipe(name, shapes="padded", compile=True, **changes)
    searchable = SearchableCNN(net(), config).train()
    counts = [draws.count for draws in searchable.modules() if isinstance(draws, Draws)]
    searchable(batches()[0][0])
    assert made
    assert not late
    drawn = [draws.count for draws in searchable.modules() if isinstance(draws, Draws)]
    used = [bool(config.exploration)] + [True] * (config.mask == "ring")
    assert [now - then for now, then in zip(drawn, counts, strict=True)] == used


MODES = {
    "exact": {},
    "padded": {"shapes": "padded"},
    "compiled": {"shapes": "padded", "compile": True},
}


@pytest.mark.parametrize(
    "mode", ["exact", "padded", pytest.param("compiled", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("centre", ["paper", "aligned"])
def test_the_papers_kernels_come_through_both_operators_in_every_mode(
    mode, centre, fresh, monkeypatch
):
    called = Counter()

    def spied(name):
        operator = getattr(eager, name)

        def spy(*arguments):
            called[name] += 1
            return operator(*arguments)

        return spy

    for name in ("gru_unroll", "assemble_kernels"):
        for direction in (name, f"{name}_backward"):
            monkeypatch.setattr(eager, direction, spied(direction))
    config = recipe("paper", epochs=1, centre=centre, **MODES[mode])
    search(net(), batches(count=3), budget=BUDGET, config=config)
    # In each of three steps: one GRU for sizes, one call for all GRUs of kernels, one assembly.
    assert called["gru_unroll_backward"] == 2 * 3
    assert called["assemble_kernels_backward"] == 3
    assert called["assemble_kernels"] >= 3
    assert called["gru_unroll"] >= 2 * 3


@pytest.mark.long
def test_exact_shapes_are_compiled_anew_for_every_tuple_of_sizes(fresh):
    # Which is why they are refused. Inductor, behind this, takes kernel shapes for constants.
    searchable = SearchableCNN(net(), recipe("bank")).train()
    searchable.model.compile(backend="aot_eager")
    seen, graphs = graphs_of(searchable, 3)
    assert 1 < len(seen) <= graphs
    assert graphs_of(searchable, 12)[1] == torch._dynamo.config.recompile_limit


@pytest.mark.long
def test_a_compiled_search_finds_the_plan_of_the_one_without(fresh):
    def found(**changes):
        config = recipe("bank", shapes="padded", size_lr=0.05, finalists=6, race_steps=0, **changes)
        return search(net(), batches(), budget=BUDGET, config=config)

    plain, compiled = found(), found(compile=True)
    assert compiled.sizes == plain.sizes
    assert compiled.soft_sizes == pytest.approx(plain.soft_sizes, rel=1e-4)
    assert set(plain.soft_sizes.values()) != {2.9908732175827026}
    assert counters["stats"]["unique_graphs"] == 1
    # The next search in this process needs no other graph.
    assert found(compile=True, seed=1).sizes == found(seed=1).sizes
    assert counters["stats"]["unique_graphs"] == 1


on_a_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]


@pytest.mark.parametrize("name", ["paper", "default"])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_a_gpu)])
def test_a_padded_step_does_not_wait_for_the_gpu(name, device):
    searchable = SearchableCNN(net(), recipe(name, shapes="padded")).to(device).train()
    optimizer = torch.optim.AdamW(searchable.parameter_groups())

    def step(images, labels):
        loss = nn.functional.cross_entropy(searchable(images), labels)
        optimizer.zero_grad()
        (loss + searchable.budget_loss(BUDGET)).backward()
        optimizer.step()

    first, second, *_ = batches(device)
    step(*first)  # the operators choose their settings
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(*second)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["paper", "default"])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_a_gpu)])
def test_cuda_graphs_find_the_plan_of_the_search_without(name, precision, device, fresh):
    def found(steps, **changes):
        config = recipe(name, shapes="padded", epochs=2, precision=precision, **changes)
        model, loader = net().to(device), batches(device)
        return search(model, loader, budget=BUDGET, config=config, on_step=steps.append)

    plain_steps, steps = [], []
    # First the one with graphs, which may not rely on what the other has called.
    compiled, plain = found(steps, compile=True), found(plain_steps)
    # Read at the end, so that each step's outputs are its own and not the last one's.
    close = {"rtol": 0, "atol": 1e-3 if precision == "float32" else 0.1}
    for theirs, mine in zip(plain_steps, steps, strict=True):
        torch.testing.assert_close(mine.outputs, theirs.outputs, **close)
        torch.testing.assert_close(mine.soft_sizes, theirs.soft_sizes, **close)
    if precision == "float32":
        assert compiled.sizes == plain.sizes
    assert counters["stats"]["unique_graphs"] == 1
    assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_draws_from_its_own_parts_and_makes_its_own_graph(copied):
    searchable = SearchableCNN(net(), recipe("bank", shapes="padded", exploration=0.5))
    searchable.static_forward.compiled = lambda *_: pytest.fail("the graph of another network")
    other = copied(searchable)
    parts = other.static_forward
    assert parts.compiled is None
    for name in ("size_predictor", "kernel_predictor", "padding", "draws"):
        assert getattr(parts, name) is getattr(other, name) is not getattr(searchable, name)
    with torch.no_grad():
        other.size_predictor.head_bias += 1.0
    (images, _), *_ = batches()
    searchable(images), other(images)
    assert (other.soft_sizes > searchable.soft_sizes).all()
