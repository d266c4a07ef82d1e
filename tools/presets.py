"""The searches that have a name of their own: data, network and budget of each."""

from dataclasses import dataclass

import torch
from effconv_data import Batches, load, synthetic
from effconv_models import create_model
from torch import nn


@dataclass(frozen=True)
class Preset:
    """What a named search starts from."""

    model: str
    budget: float
    search_epochs: int = 10
    train_epochs: int | None = None
    """None leaves the training recipe's own."""


PRESETS = {
    "cifar10": Preset("cifar_resnet20", 0.27e6),
    "mnist": Preset("cifar_resnet20", 0.27e6),
    "demo": Preset("demo", 12e3, search_epochs=6, train_epochs=6),
}


def make_batches(
    data: str, split: str, *, batch_size: int, device: str, seed: int, scale: float
) -> Batches:
    """Give a split of a preset's data; `scale` is that of the demo's pattern, in pixels."""
    if data == "demo":
        return synthetic(scale, split=split, batch_size=batch_size, device=device, seed=seed)
    return load(data, split=split, batch_size=batch_size, device=device, seed=seed)


def make_network(name: str, batches: Batches, seed: int) -> nn.Module:
    """Make a network for a data set's channels and classes, its values drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    channels, classes = batches.image_shape[0], batches.num_classes
    if name == "demo":
        return demo_network(channels, classes, generator)
    return create_model(name, in_channels=channels, num_classes=classes, generator=generator)
