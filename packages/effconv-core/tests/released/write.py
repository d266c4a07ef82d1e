"""Writes what a released version leaves on disk; run once with each version, before its release.

`python write.py FOLDER`, with that version of effconv-core installed, makes FOLDER/VERSION.
"""

import sys
from contextlib import suppress
from pathlib import Path

import effconv_core
import torch
from effconv_core import apply_plan, recipe, save, save_training_state, search
from torch import nn

BUDGET = 300


def network() -> nn.Module:
    """Make the network that every version searched."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1),
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


class Loader:
    """Four batches that depend on the epoch alone; stops the search in an epoch when asked."""

    def __init__(self, stop_in_epoch: int | None = None) -> None:
        self.stop_in_epoch, self.epoch = stop_in_epoch, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch over."""
        self.epoch = epoch
        if epoch == self.stop_in_epoch:
            raise KeyboardInterrupt

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.epoch)
        for _ in range(4):
            yield torch.randn(8, 1, 9, 9, generator=generator), torch.arange(8) % 4


def config(name: str) -> effconv_core.SearchConfig:
    """Give a recipe, small."""
    changes = {"epochs": 2, "size_hidden": 4, "kernel_hidden": 3}
    if name == "default" and hasattr(effconv_core.SearchConfig, "race_steps"):
        # As the recipe was before 0.5.0.
        changes |= {"least_steps": 0, "finalists": 24, "race_steps": 0}
    return recipe(name, **changes)


def training(model: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer of a training."""
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def main(folder: Path) -> None:
    """Write plans, a trained CNN, and states of two searches and of a training."""
    folder.mkdir(parents=True)
    for name in ("paper", "default"):
        plan = search(network(), Loader(), budget=BUDGET, config=config(name))
        plan.save(folder / f"{name}.json")
        keywords = {"budget": BUDGET, "config": config(name)}
        with suppress(KeyboardInterrupt):
            search(network(), Loader(1), checkpoint=folder / f"{name}.safetensors", **keywords)
    cnn = apply_plan(network(), plan, generator=torch.Generator().manual_seed(0))
    optimizer = training(cnn)
    for images, labels in Loader():
        optimizer.zero_grad()
        nn.functional.cross_entropy(cnn(images), labels).backward()
        optimizer.step()
    save(cnn, plan, folder / "cnn.safetensors")
    save_training_state(folder / "training.safetensors", cnn, optimizer, {"epoch": 1})


if __name__ == "__main__":
    main(Path(sys.argv[1]) / effconv_core.__version__)
