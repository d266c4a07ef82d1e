"""Small spaces of plans: every plan near a budget can be trained from scratch in seconds."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product

import torch
from effconv_core import SearchableCNN
from effconv_data import Batches, load, synthetic
from torch import nn

from tools.presets import demo_network
from tools.train import TrainConfig

SAMPLES = 4000  # of each split
TOLERANCE = 0.02


@dataclass(frozen=True)
class Space:
    """A small network on a data set, with a budget that decides which plans belong to it."""

    batches: Callable[[str, int], Batches]
    """Gives the batches of a split for a seed."""
    train: TrainConfig
    halve: bool = False
    """Whether images are halved before the network sees them."""

    def network(self, seed: int) -> nn.Module:
        """Make the network, with sizes 3, its values drawn from the seed."""
        train = self.batches("train", 0)
        generator = torch.Generator().manual_seed(seed)
        network = demo_network(train.image_shape[0], train.num_classes, generator)
        if self.halve:
            named = OrderedDict(halve=nn.AvgPool2d(2), **dict(network.named_children()))
            network = nn.Sequential(named)
        return network.to(memory_format=torch.channels_last)

    @property
    def budget(self) -> int:
        """The parameter count with sizes 3."""
        searchable = SearchableCNN(self.network(0))
        return searchable.cost([3] * len(searchable.layers))

    def plans(self) -> list[dict[str, int]]:
        """Give every plan whose cost is within the tolerance of the budget."""
        searchable = SearchableCNN(self.network(0))
        uniform = searchable.cost([3] * len(searchable.layers))
        return [
            dict(zip(searchable.layers, sizes, strict=True))
            for sizes in product(range(1, 8), repeat=len(searchable.layers))
            if abs(searchable.cost(sizes) / uniform - 1) <= TOLERANCE
        ]


@lru_cache(maxsize=4)
def planted(scale: float, split: str, seed: int) -> Batches:
    """Give the drawn set at a scale."""
    return synthetic(scale, split=split, samples=SAMPLES, batch_size=64, seed=seed)


@lru_cache(maxsize=4)
def pictures(name: str, split: str, seed: int) -> Batches:
    """Give the first pictures of a real set."""
    return load(name, split=split, batch_size=64, seed=seed, limit=SAMPLES)


ADAM = TrainConfig(20, 64, "adam", 1e-2, 0.0, "cosine", 1.0)

SPACES = {
    "planted-2.5": Space(partial(planted, 2.5), ADAM),
    "planted-5": Space(partial(planted, 5.0), ADAM),
    "planted-8": Space(partial(planted, 8.0), ADAM),
    "mnist": Space(partial(pictures, "mnist"), ADAM),
    "cifar10-16": Space(partial(pictures, "cifar10"), ADAM, halve=True),
    "cifar10-32": Space(partial(pictures, "cifar10"), ADAM),
}
