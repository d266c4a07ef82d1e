"""Named searches: data, network and settings of each."""

import itertools
import os
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from effconv_core import SearchConfig, recipe
from effconv_core.config import recipe_name
from effconv_core.engine.train import TRAIN_RECIPES, TrainConfig, training_of
from effconv_data import Batches, load, synthetic
from effconv_data.archived_sequences import ARCHIVED
from effconv_data.sequences import SPOKEN_DIGITS, VIEWS
from effconv_models import create_model
from torch import Tensor, nn


@dataclass(frozen=True)
class PaperSet:
    """What the EffConv paper does with a data set."""

    budget: float
    """Parameters of its main result with ResNet-20."""
    train: TrainConfig
    """Training of the found CNN: the commands of the FlexConv repository, which it refers to."""
    augment: bool
    """Whether these commands augment the images."""
    search_epochs: int = 10


_FLEXCONV = TRAIN_RECIPES["flexconv"]
PAPER_SETS = {
    "cifar10": PaperSet(0.66e6, _FLEXCONV, True),
    "mnist": PaperSet(0.66e6, _FLEXCONV, False),
    "stl10": PaperSet(0.66e6, replace(_FLEXCONV, epochs=100, batch_size=256, lr=1e-2), False),
    "imagenet32": PaperSet(
        0.50e6, replace(_FLEXCONV, batch_size=2048, lr=1e-2, weight_decay=1e-5), True, 5
    ),
}
"""The data sets of the paper by name: its Tables 2, 1, 3 and 4."""

SEQUENCES = (*VIEWS, *ARCHIVED)
"""Data of sequences, which no command augments."""


@dataclass(frozen=True)
class Preset:
    """The settings of a named search."""

    model: str
    budget: float
    search: SearchConfig
    train: TrainConfig
    batch_size: int
    """Batch size of the search."""


def preset(data: str, name: str) -> Preset:
    """Return the settings of a named search.

    Args:
        data: a key of `PAPER_SETS`, one of `SEQUENCES`, or `demo`.
        name: of the recipe, a key of `RECIPES`: `bank` trains the found CNN as He et al. train
            ResNets, all others as the paper does.
    """
    if data == "demo":
        # The budget is the parameter count with sizes 3.
        train = TrainConfig(8, 64, "adam", 1e-2, 0.0, "cosine", 1.0)
        return Preset("demo", 10_684, recipe(name), train, 64)
    if data in SEQUENCES:
        # The budget is about the parameter count with sizes 9; sizes go up to 31.
        return Preset("resnet1d10", 0.31e6, recipe(name, k=15), training_of(name), 64)
    theirs = PAPER_SETS[data]
    if recipe_name(name) == "bank":
        return Preset("cifar_resnet20", theirs.budget, recipe(name), training_of(name), 128)
    search = recipe(name, epochs=theirs.search_epochs)
    return Preset("cifar_resnet20", theirs.budget, search, theirs.train, 128)


def is_augmented(data: str, name: str) -> bool:
    """Return whether a named search gives training images the set's usual augmentation."""
    return data not in SEQUENCES and (recipe_name(name) == "bank" or augments(data))


def augments(data: str) -> bool:
    """Return whether the paper's training of a set, or the demo's, augments the images."""
    return data == "demo" or (data in PAPER_SETS and PAPER_SETS[data].augment)


def make_batches(
    data: str,
    split: str,
    *,
    scale: float,
    limit: int | None = None,
    augment: bool = True,
    **options: Any,
) -> Batches:
    """Return a split of a preset's data.

    Args:
        data: a key of `PAPER_SETS`, one of `SEQUENCES`, or `demo`.
        split: `train` or `test`.
        scale: width of the demo's pattern, in pixels.
        limit: largest number of images; None takes all.
        augment: whether training images get the set's usual augmentation.
        **options: options of `load` and `synthetic`, such as batch_size, device, seed and rank.

    Raises:
        FileNotFoundError: if the set is not there; the message has the command that makes it.
    """
    if data == "demo":
        samples = {} if limit is None else {"samples": limit}
        return synthetic(scale, split=split, **samples, **options)
    if data in SEQUENCES:  # never augmented; where recordings are not there, `load` says so
        if data in VIEWS:
            check_set(VIEWS[data].images)
        return load(data, split=split, limit=limit, **options)
    check_set(data)
    kind = None if augment else as_they_are
    return load(data, split=split, limit=limit, augment=kind, **options)


def as_they_are(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images unchanged."""
    return images


def check_set(data: str) -> None:
    """Raise where a set is not in the folder that EFFCONV_DATA names.

    Raises:
        FileNotFoundError: if it is not there; the message has the command that makes it.
    """
    root = os.environ.get("EFFCONV_DATA", "")
    if "://" in root or (root and (Path(root) / data / "index.json").is_file()):
        return
    source = " --source FOLDER_OF_ARCHIVES" if data == "imagenet32" else ""
    prepare = f"hatch run effconv-data prepare {data} --out {root or 'data'}/{data}{source}"
    if root:
        raise FileNotFoundError(f"the set {data} is not in EFFCONV_DATA={root}; run `{prepare}`")
    raise FileNotFoundError(
        f"EFFCONV_DATA names no folder in which the set {data} could lie; run `{prepare}` and "
        "export EFFCONV_DATA=data, or export the folder that has it"
    )


def data_note(data: str) -> str:
    """Return a description of a preset's images, for the report; call it after they were read."""
    if data == "demo":
        return "drawn patches in noise"
    if data == SPOKEN_DIGITS:
        return f"{data}, 8 kHz, the test's speakers are not in training"
    if data in ARCHIVED:
        return f"{data}, of the official archive"
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
