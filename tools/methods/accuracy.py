"""Train each method's network on the same pictures for as many epochs."""

import time
from dataclasses import asdict, replace
from typing import Any

import torch
from effconv_core import apply_plan, recipe, search
from effconv_core.run_files import environment
from effconv_core.training import evaluate, train
from effconv_data import load
from effconv_models import effective_kernel_sizes, effective_sizes
from torch import nn

from tools.flexnet import parameter_groups
from tools.methods.networks import SIZES, TRAIN, macs, make, parameters
from tools.multi_resolution import MixingConfig, mixing_turns
from tools.presets import data_note
from tools.reproduce.run import measure_peak, peak_memory

MIXING = MixingConfig(lr=0.04)
"""The paper's rate of 1e-4 would move nothing in so few steps."""


def train_once(
    method: str,
    size: str,
    seed: int,
    epochs: int,
    pictures: int | None,
    device: str,
    test_pictures: int | None = None,
) -> dict[str, Any]:
    """Learn the sizes and train; give the row.

    Args:
        method: a name of `METHODS`.
        size: a name of `SIZES`.
        seed: of everything drawn.
        epochs: of the training; EffConv's search comes before.
        pictures: of the training set; None takes all.
        device: where to run.
        test_pictures: of the test set; None takes all.
    """
    torch.set_num_threads(1)
    measure_peak(device)
    config = replace(TRAIN[method], epochs=epochs)
    batches = load(
        "cifar10", batch_size=config.batch_size, seed=seed, limit=pictures, device=device
    )
    test = load(
        "cifar10", split="test", batch_size=500, seed=seed, limit=test_pictures, device=device
    )
    network = make(method, SIZES[size], batches.image_shape[-1], seed)
    network = network.to(device, memory_format=torch.channels_last)
    row: dict[str, Any] = {"method": method, "size": size, "seed": seed, "pictures": pictures}
    options: dict[str, Any] = {}
    started = time.perf_counter()
    if method == "effconv":
        found = recipe("default", seed=seed)
        plan = search(network, batches, budget=SIZES[size].parameters, config=found)
        network = apply_plan(network, plan, generator=torch.Generator().manual_seed(seed))
        network = network.to(memory_format=torch.channels_last)
        row |= {"search_epochs": found.epochs, "sizes": plan.sizes}
        row["search_seconds"] = round(time.perf_counter() - started, 1)
    elif method == "flexnet":
        options = {"groups": parameter_groups(network), "seed": seed}
    elif method == "multi-resolution":
        batches, rest = batches.divide(MIXING.share, seed=seed)
        options = {"turns": mixing_turns(network, rest, MIXING)}
        row["mixing"] = asdict(MIXING)
    train_started = time.perf_counter()
    train(network, batches, config, **options)
    row["train_seconds"] = round(time.perf_counter() - train_started, 1)
    return {
        **row,
        "train": asdict(config),
        "parameters": parameters(network),
        "macs": macs(network, batches.image_shape[-1]),
        "accuracy": evaluate(network, test),
        "learned_sizes": learned_sizes(method, network),
        "peak_memory_mib": peak_memory(device),
        "environment": {"data": data_note("cifar10"), **environment(device)},
    }


def learned_sizes(method: str, network: nn.Module) -> list[Any]:
    """Give the sizes in pixels of the image, where they are not those of `sizes`."""
    if method == "flexnet":
        return list(effective_sizes(network).values())
    if method == "multi-resolution":
        return [round(size, 2) for size in effective_kernel_sizes(network).values()]
    return []
