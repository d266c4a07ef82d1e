"""Small search spaces: all plans near a budget can be trained from scratch in seconds."""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product

import torch
from effconv_core import SearchableCNN
from effconv_core.engine.train import TrainConfig
from effconv_data import Batches, load, synthetic
from effconv_models import CifarResNet
from torch import nn

from tools.presets import demo_network

TOLERANCE = 0.02
SIZES_DRAWN = (1, 5)  # before a random plan is moved to the budget; its mean cost is near that of 3


@dataclass(frozen=True)
class Space:
    """A small network on a data set, with a budget that decides which plans belong to it."""

    make_batches: Callable[[str, int, int], Batches]
    """Returns the batches of a split for a seed and a number of samples."""
    train: TrainConfig
    samples: int = 4000
    """Number of samples of each split."""
    halve: bool = False
    """Whether images are halved before the network."""
    mixes: int = 3
    """Number of searched layers after the first, in the demo's network."""
    depth: int | None = None
    """Depth of a CIFAR ResNet; None takes the demo's network."""
    device: str = "cpu"
    """Device of the batches and the network."""
    uniform: int = 3
    """The budget is the cost of this size in all layers."""
    table: str = ""
    """A ground-truth table of all plans, shared by spaces of other budgets; if empty, the space has
    its own table, of the plans near its budget."""

    def batches(self, split: str, seed: int) -> Batches:
        """Return the batches of a split for a seed."""
        return self.make_batches(split, seed, self.samples)

    def network(self, seed: int) -> nn.Module:
        """Build the network, with sizes 3 and initial values from the seed."""
        train = self.batches("train", 0)
        generator = torch.Generator().manual_seed(seed)
        channels, classes = train.image_shape[0], train.num_classes
        if self.depth is None:
            network = demo_network(channels, classes, generator, mixes=self.mixes)
            layers = dict(network.named_children())
        else:
            network = CifarResNet(
                self.depth, in_channels=channels, num_classes=classes, generator=generator
            )
            layers = {"resnet": network}
        if self.halve:
            network = nn.Sequential(OrderedDict(halve=nn.AvgPool2d(2), **layers))
        return network.to(self.device, memory_format=torch.channels_last)

    @property
    def budget(self) -> int:
        """The parameter count of the uniform plan."""
        searchable = self.searchable()
        return searchable.cost([self.uniform] * len(searchable.layers))

    def plans(self, tolerance: float = TOLERANCE) -> list[dict[str, int]]:
        """Return all plans whose cost is within a tolerance of the budget."""
        searchable, budget = self.searchable(), self.budget
        return [
            dict(zip(searchable.layers, sizes, strict=True))
            for sizes in product(range(1, 8), repeat=len(searchable.layers))
            if abs(searchable.cost(sizes) / budget - 1) <= tolerance
        ]

    def searchable(self) -> SearchableCNN:
        """Return the network with the sizes of the space allowed."""
        return SearchableCNN(self.network(0))

    def draw_plans(self, most: int, seed: int) -> list[dict[str, int]]:
        """Draw at most `count` of the space's plans."""
        plans, generator = self.plans(), torch.Generator().manual_seed(seed)
        order = torch.randperm(len(plans), generator=generator)[:most].tolist()
        return [plans[i] for i in order]

    def table_plans(self) -> list[dict[str, int]]:
        """Return the plans in the space's table."""
        return self.plans(math.inf if self.table else TOLERANCE)


def random_plan(
    searchable: SearchableCNN, budget: float, generator: torch.Generator
) -> dict[str, int]:
    """Draw sizes, and adjust them to the budget."""
    low, high = SIZES_DRAWN
    sizes = torch.randint(low, high + 1, (len(searchable.layers),), generator=generator)
    sizes = searchable.nearest_sizes(sizes.tolist(), budget)
    return dict(zip(searchable.layers, sizes, strict=True))


@lru_cache(maxsize=4)
def planted(scale: float, image_size: int, split: str, seed: int, samples: int) -> Batches:
    """Return the drawn set at a scale."""
    return synthetic(
        scale, split=split, samples=samples, image_size=image_size, batch_size=64, seed=seed
    )


@lru_cache(maxsize=4)
def pictures(name: str, split: str, seed: int, samples: int) -> Batches:
    """Return the first images of a real set."""
    return load(name, split=split, batch_size=64, seed=seed, limit=samples)


ADAM = TrainConfig(20, 64, "adam", 1e-2, 0.0, "cosine", 1.0)
EVERY = Space(partial(planted, 4.0, 16), ADAM, samples=2000, mixes=2, table="every")

SPACES = {
    "planted-2.5": Space(partial(planted, 2.5, 24), ADAM),
    "planted-5": Space(partial(planted, 5.0, 24), ADAM),
    "planted-8": Space(partial(planted, 8.0, 24), ADAM),
    "mnist": Space(partial(pictures, "mnist"), ADAM),
    "cifar10-16": Space(partial(pictures, "cifar10"), ADAM, halve=True),
    "cifar10-32": Space(partial(pictures, "cifar10"), ADAM),
    "every-4": replace(EVERY, uniform=4),
    "every-5": replace(EVERY, uniform=5),
    "every-6": replace(EVERY, uniform=6),
}

TABLES = {space.table or name: space for name, space in SPACES.items()}
"""The ground-truth tables by name, each with the space whose trainings it holds."""
