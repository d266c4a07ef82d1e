"""Train each method's network on the same images for the same number of epochs."""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from effconv_core import apply_plan, recipe, search
from effconv_core.engine.train import evaluate, make_optimizer, train
from effconv_core.runs.environment import environment
from effconv_data import Batches, load, synthetic
from effconv_models import effective_sizes
from torch import nn

from tools.methods.networks import SIZES, TRAIN, macs, make, parameters
from tools.presets import data_note
from tools.support.memory import measure_peak, peak_memory
from tools.train.alternating import alternating
from tools.train.flexnet import parameter_groups
from tools.train.multi_resolution import MixingConfig, mixing_optimizer

MIXING = MixingConfig(lr=0.04)
"""The paper's rate of 1e-4 would have no effect in so few steps."""


DRAWN = {"scale": 12, "image_size": 96, "patches": 8, "contrast": 10.0}
"""The drawn set at the size of STL-10's pictures, with patches that are wider than small kernels
see."""


@dataclass(frozen=True)
class Training:
    """One training of a method's network."""

    method: str
    """A name of `METHODS`."""
    size: str
    """A name of `SIZES`."""
    seed: int
    """Seed of all random numbers."""
    epochs: int
    """Epochs of the training; EffConv's search comes before."""
    pictures: int | None
    """Training images; None takes all."""
    data: str = "cifar10"
    """`cifar10`, `stl10`, or `drawn`: patches in noise, of 96x96 pixels."""
    test_pictures: int | None = None
    """Test images; None takes all, of the drawn set 1,000."""


def split_of(training: Training, split: str, batch_size: int, device: str) -> Batches:
    """Return a split of a training's data."""
    options = {"split": split, "batch_size": batch_size, "seed": training.seed, "device": device}
    limit = training.pictures if split == "train" else training.test_pictures
    if training.data == "drawn":
        return synthetic(samples=limit or 1_000, **DRAWN, **options)
    return load(training.data, limit=limit, **options)


def train_method(training: Training, device: str) -> dict[str, Any]:
    """Learn the sizes and train; return the row."""
    torch.set_num_threads(1)
    measure_peak(device)
    method, size, seed = training.method, training.size, training.seed
    config = replace(TRAIN[method], epochs=training.epochs)
    batches = split_of(training, "train", config.batch_size, device)
    test = split_of(training, "test", 500, device)
    kinds = {"in_channels": batches.image_shape[0], "num_classes": batches.num_classes}
    network = make(method, SIZES[size], batches.image_shape[-1], seed, **kinds)
    network = network.to(device, memory_format=torch.channels_last)
    row: dict[str, Any] = {"method": method, "size": size, "seed": seed}
    row |= {"data": training.data, "pictures": training.pictures}
    options: dict[str, Any] = {}
    started = time.perf_counter()
    if method == "effconv":
        found = recipe("bank", seed=seed)
        plan = search(network, batches, budget=SIZES[size].parameters, config=found)
        network = apply_plan(network, plan, generator=torch.Generator().manual_seed(seed))
        network = network.to(memory_format=torch.channels_last)
        row |= {"search_epochs": found.epochs, "sizes": plan.sizes}
        row["search_seconds"] = round(time.perf_counter() - started, 1)
    elif method == "flexnet":
        options = {"optimizer": make_optimizer(parameter_groups(network), config), "seed": seed}
    elif method == "multi-resolution":
        batches, rest = batches.divide(MIXING.share, seed=seed)
        mixing = mixing_optimizer(network, MIXING)
        optimizer, on_step = alternating(network, config, mixing, rest, len(batches))
        options = {"optimizer": optimizer, "on_step": on_step}
        row["mixing"] = asdict(MIXING)
    note = data_note("demo" if training.data == "drawn" else training.data)
    train_started = time.perf_counter()
    train(network, batches, config, **options)
    row["train_seconds"] = round(time.perf_counter() - train_started, 1)
    return {
        **row,
        "train": asdict(config),
        "parameters": parameters(network),
        "macs": macs(network, batches.image_shape),
        "accuracy": evaluate(network, test),
        "learned_sizes": learned_sizes(method, network),
        "peak_memory_mib": peak_memory(device),
        "environment": {"data": note, **environment(device)},
    }


def learned_sizes(method: str, network: nn.Module) -> list[Any]:
    """Return the sizes in pixels of the image, if they are not those of `sizes`."""
    if method not in ("flexnet", "multi-resolution"):
        return []
    sizes = effective_sizes(network).values()
    return [round(size, 2) if isinstance(size, float) else size for size in sizes]
