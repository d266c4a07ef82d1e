"""Searches through `torch.compile`: one graph for all sizes, and the plan of one without it."""

import copy

import pytest
import torch
from effconv_core import SearchableCNN, recipe
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


@pytest.mark.parametrize("name", ["paper", "default"])
def test_a_padded_step_is_one_graph_whatever_the_sizes(name, fresh, monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, mode: compile_(f, backend="aot_eager", fullgraph=True)
    )
    changes = {"shapes": "padded", "size_lr": 0.3}
    if name == "paper":
        changes["exploration"] = 2.0
    plain = SearchableCNN(net(), recipe(name, **changes)).train()
    compiled = SearchableCNN(net(), recipe(name, **changes, compile=True)).train()
    for images, _ in batches():
        expected, found = plain(images), compiled(images)
        torch.testing.assert_close(found, expected)
        assert torch.equal(compiled.soft_sizes, plain.soft_sizes)
    assert counters["stats"]["unique_graphs"] == 1
    # Evaluation and copies run as they are.
    copied = copy.deepcopy(compiled).eval()
    torch.testing.assert_close(copied(images), plain.eval()(images))
    assert counters["stats"]["unique_graphs"] == 1
