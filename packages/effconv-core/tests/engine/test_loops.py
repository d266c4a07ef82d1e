"""Other people's loops, and losses that are not a classifier's."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, apply_plan, recipe, search
from torch import nn

EXAMPLES = Path(__file__).parents[2] / "examples"
BUDGET = 4_000


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classifier():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


def batches():
    images = torch.utils.data.TensorDataset(torch.randn(24, 3, 12, 12), torch.arange(24) % 4)
    return torch.utils.data.DataLoader(images, batch_size=8)  # in order, so that loops agree


def by_a_plain_loop(model, loader, epochs):
    searchable = SearchableCNN(model, recipe("bank"))
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    for _ in range(epochs):
        for images, labels in loader:
            loss = F.cross_entropy(searchable(images), labels) + searchable.budget_loss(BUDGET)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return searchable.plan(BUDGET)


def same_as_the_plain_loops(plan, model, loader, epochs):
    """The loop changes nothing of what is learned; a step left out or made twice would show."""
    expected = by_a_plain_loop(model, loader, epochs)
    fewer = by_a_plain_loop(model, loader, epochs - 1)
    assert list(plan.soft_sizes.values()) == pytest.approx(list(expected.soft_sizes.values()))
    assert list(fewer.soft_sizes.values()) != pytest.approx(list(expected.soft_sizes.values()))
    assert plan.sizes == expected.sizes
    assert abs(plan.cost / BUDGET - 1) <= 0.02


def test_lightning():
    lightning = pytest.importorskip("lightning")
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model, loader = classifier(), batches()
    plan = example("lightning_search").learn_sizes(copy.deepcopy(model), loader, BUDGET, trainer)
    same_as_the_plain_loops(plan, model, loader, epochs=2)


def test_accelerate():
    accelerate = pytest.importorskip("accelerate")
    model, loader = classifier(), batches()
    plan = example("accelerate_search").learn_sizes(
        copy.deepcopy(model), loader, BUDGET, accelerate.Accelerator(cpu=True), epochs=2
    )
    same_as_the_plain_loops(plan, model, loader, epochs=2)


class UNet(nn.Module):
    """One level down and up again, with a transposed convolution."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.bottom = nn.Conv2d(12, 12, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.join = nn.Conv2d(16, 8, 3, padding=1)
        self.classes = nn.Conv2d(8, 5, 1)

    def forward(self, images):
        fine = self.enter(images).relu()
        coarse = self.bottom(self.down(fine).relu()).relu()
        return self.classes(self.join(torch.cat([fine, self.up(coarse)], 1)).relu())


class Detector(nn.Module):
    """Classes and boxes for each cell, as a dictionary."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        )
        self.scores = nn.Conv2d(12, 4, 3, padding=1)
        self.boxes = nn.Conv2d(12, 4, 3, padding=1)

    def forward(self, images):
        features = self.body(images).relu()
        return {"scores": self.scores(features), "boxes": self.boxes(features)}


def detection_loss(outputs, targets):
    boxes = F.smooth_l1_loss(outputs["boxes"], targets["boxes"])
    return F.cross_entropy(outputs["scores"], targets["classes"]) + boxes


IMAGES = (4, 3, 12, 12)
TASKS = {
    "regression": (
        lambda: nn.Sequential(*classifier()[:-1], nn.Linear(12, 2)),
        lambda: torch.randn(4, 2),
        F.mse_loss,
        4_000,
    ),
    "segmentation": (UNet, lambda: torch.randint(5, (4, 12, 12)), F.cross_entropy, 6_000),
    "detection": (
        Detector,
        lambda: {"classes": torch.randint(4, (4, 6, 6)), "boxes": torch.randn(4, 4, 6, 6)},
        detection_loss,
        3_500,
    ),
}


@pytest.mark.parametrize("task", TASKS)
def test_search_takes_any_loss(task):
    make, targets, criterion, budget = TASKS[task]
    model, loader = make(), [(torch.randn(IMAGES), targets()) for _ in range(3)]
    steps = []
    keywords = {"criterion": criterion, "config": recipe("bank", least_steps=0)}
    plan = search(model, loader, budget=budget, on_step=steps.append, **keywords)
    first = steps[0]
    torch.testing.assert_close(first.task_loss, criterion(first.outputs, first.targets).detach())
    assert abs(plan.cost / budget - 1) <= 0.02
    cnn = apply_plan(model, plan)
    assert sum(p.numel() for p in cnn.parameters()) == plan.cost
    assert torch.isfinite(criterion(cnn(loader[0][0]), loader[0][1]))


@pytest.mark.parametrize("task", TASKS)
def test_a_loop_of_ones_own_takes_any_loss(task):
    make, targets, criterion, budget = TASKS[task]
    images, wanted = torch.randn(IMAGES), targets()
    searchable = SearchableCNN(make(), recipe("bank"))
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    losses, slopes = [], torch.zeros(len(searchable.layers))
    for _ in range(30):
        loss = criterion(searchable(images), wanted)
        # Of the task alone, so that the budget's slope cannot stand in for it.
        slopes += torch.autograd.grad(loss, searchable.soft_sizes, retain_graph=True)[0].abs()
        optimizer.zero_grad()
        (loss + searchable.budget_loss(budget)).backward()
        optimizer.step()
        losses.append(loss.item())
    assert slopes.min() > 0
    assert sum(losses[-5:]) < sum(losses[:5])
    assert abs(searchable.plan(budget).cost / budget - 1) <= 0.02
