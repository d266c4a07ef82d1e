"""Named searches: data, network and settings of each."""

import itertools
import os
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from effconv_core import RECIPES, SearchConfig
from effconv_core.engine.train import TrainConfig, training_of
from effconv_data import Batches, load, synthetic
from effconv_data.sequences import SPOKEN_DIGITS, VIEWS
from effconv_models import create_model
from torch import nn

SEQUENCES = ("smnist", SPOKEN_DIGITS)


@dataclass(frozen=True)
class Preset:
    """The settings of a named search."""

    model: str
    budget: float
    search: SearchConfig
    train: TrainConfig
    batch_size: int
    """Batch size of the search."""


def preset(data: str, recipe: str) -> Preset:
    """Return the settings of a named search.

    Args:
        data: `cifar10`, `mnist`, `demo` or one of `SEQUENCES`.
        recipe: `paper` is the paper's search and the training it names; `default` the project's.
    """
    search = RECIPES[recipe]
    train = training_of(recipe)
    if data == "demo":
        # The budget is the parameter count with sizes 3.
        train = TrainConfig(8, 64, "adam", 1e-2, 0.0, "cosine", 1.0)
        return Preset("demo", 10_684, search, train, 64)
    if data in SEQUENCES:
        # The budget is about the parameter count with sizes 9; sizes go up to 31.
        return Preset("resnet1d10", 0.31e6, replace(search, k=15), train, 64)
    return Preset("cifar_resnet20", 0.27e6, search, train, 128)


def make_batches(
    data: str, split: str, *, scale: float, limit: int | None = None, **options: Any
) -> Batches:
    """Return a split of a preset's data.

    Args:
        data: `cifar10`, `mnist`, `demo` or one of `SEQUENCES`.
        split: `train` or `test`.
        scale: width of the demo's pattern, in pixels.
        limit: largest number of images; None takes all.
        **options: options of `load` and `synthetic`, such as batch_size, device, seed and rank.
    """
    if data == "demo":
        samples = {} if limit is None else {"samples": limit}
        return synthetic(scale, split=split, **samples, **options)
    return load(data, split=split, limit=limit, **options)


def data_note(data: str) -> str:
    """Return a description of a preset's images, for the report; call it after they were read."""
    if data == "demo":
        return "drawn patches in noise"
    if data == SPOKEN_DIGITS:
        return f"{data}, 8 kHz, the test's speakers are not in training"
    if data in VIEWS:
        return f"{data_note(VIEWS[data].images)}, read as sequences"
    folder = Path(os.environ["EFFCONV_DATA"]) / data
    with tarfile.open(next(folder.glob("train-*.tar*"))) as shard:
        first = [member.name for member in itertools.islice(shard, 2)]
        lossy = any(name.endswith((".jpg", ".jpeg")) for name in first)
    kind = "re-encoded as JPEG (lossy): compare only with the same data" if lossy else "lossless"
    return f"{data}, pictures {kind}"


def make_network(name: str, batches: Batches, seed: int) -> nn.Module:
    """Build a network for a data set's channels and classes, with initial values from the seed."""
    generator = torch.Generator().manual_seed(seed)
    channels, classes = batches.image_shape[0], batches.num_classes
    if name == "demo":
        return demo_network(channels, classes, generator)
    sizes = {"kernel_sizes": 9} if name.startswith("resnet1d") else {}
    return create_model(
        name, in_channels=channels, num_classes=classes, generator=generator, **sizes
    )


def demo_network(
    channels: int, classes: int, generator: torch.Generator, *, mixes: int = 3
) -> nn.Sequential:
    """Build a small CNN in which only the first searched layer, `see`, looks at the pixels.

    Pooling follows it, so that the `mix` layers cannot compensate for a `see` that is too small.
    """
    network = nn.Sequential()
    widths = {
        "stem": (channels, 8, 1),
        "see": (8, 16, 3),
        **{f"mix{i}": (16, 16, 3) for i in range(1, mixes)},
        f"mix{mixes}": (16, 32, 3),
    }
    for name, (c_in, c_out, size) in widths.items():
        conv = nn.Conv2d(c_in, c_out, size, padding=size // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", generator=generator)
        network.add_module(name, conv)
        network.add_module(f"{name}_norm", nn.BatchNorm2d(c_out))
        network.add_module(f"{name}_relu", nn.ReLU())
        if name == "see":
            network.add_module("see_pool", nn.MaxPool2d(4))
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    classifier = nn.Linear(32, classes)
    nn.init.normal_(classifier.weight, std=0.1, generator=generator)
    nn.init.zeros_(classifier.bias)
    network.add_module("classifier", classifier)
    return network
