"""`hatch run bench:warm-start`: does a found CNN gain by beginning with the search's kernels?

A ResNet-8 is searched on a part of CIFAR-10, under the budget of its 3x3 kernels. The plan's CNN is
trained twice, on the same pictures in the same order: from fresh values, as in the paper, and from
what the search has learned. It is tested before the first and after every epoch, in bfloat16 where
PyTorch's autocast allows. Rows are kept in `results/warm-start`, and not made twice.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from effconv_core import SearchableCNN, apply_plan, recipe, search
from effconv_core.io.console import PlainConsole
from effconv_core.run_files import environment
from effconv_core.training import TrainConfig, TrainStep, evaluate, train
from effconv_data import Batches, load
from effconv_models import CifarResNet
from rich.table import Table
from torch import nn

from tools.carry_over import Autocast
from tools.jobs import read_rows, run_jobs
from tools.presets import data_note

SAMPLES, TEST_SAMPLES = 8_000, 5_000
TRAIN = TrainConfig(10, 128, "sgd", 0.1, 5e-4, "cosine", 1.0)
STARTS = ("fresh", "warm")
SHOWN = (0, 1, 2, 5, 10)  # epochs


@dataclass(frozen=True)
class Options:
    """Train found CNNs from fresh values and from the search's kernels, and compare."""

    recipes: tuple[str, ...] = ("default", "paper")
    seeds: int = 3
    """Searches with each recipe."""
    workers: int = 1
    """Processes, of one thread each."""
    out: Path = Path("results/warm-start")
    """Folder of the rows."""


def network(seed: int) -> nn.Module:
    """Make ResNet-8, with sizes 3."""
    generator = torch.Generator().manual_seed(seed)
    return CifarResNet(8, generator=generator).to(memory_format=torch.channels_last)


def pictures(split: str, seed: int) -> Batches:
    """Give a part of a split."""
    limit = SAMPLES if split == "train" else TEST_SAMPLES
    return load("cifar10", split=split, batch_size=TRAIN.batch_size, seed=seed, limit=limit)


def train_from(cnn: nn.Module, batches: Batches, test: Batches) -> list[float]:
    """Train a CNN in place; give its accuracy before the first and after every epoch."""
    cnn = Autocast(cnn).to(memory_format=torch.channels_last)
    accuracies = [evaluate(cnn, test)]

    def at_the_end_of_an_epoch(step: TrainStep) -> None:
        if step.step + 1 == len(batches):
            accuracies.append(evaluate(cnn, test))
            cnn.train()

    train(cnn, batches, TRAIN, on_step=at_the_end_of_an_epoch)
    return accuracies


def compare(recipe_name: str, seed: int) -> dict[str, Any]:
    """Search once and train what was found from both starts; give the row."""
    torch.set_num_threads(1)
    model, batches, test = network(seed), pictures("train", seed), pictures("test", seed)
    budget = sum(parameter.numel() for parameter in model.parameters())
    searchable = SearchableCNN(model, recipe(recipe_name, seed=seed))
    started = time.process_time()
    plan = search(searchable, batches, budget=budget)
    seconds = time.process_time() - started
    generator = torch.Generator().manual_seed(seed)
    starts = {
        "fresh": apply_plan(model, plan, generator=generator),
        "warm": searchable.warm_start(plan),
    }
    return {
        "recipe": recipe_name,
        "seed": seed,
        "plan": plan.sizes,
        "adjusted": sorted(plan.adjusted),
        "parameters": plan.cost,
        **{start: train_from(starts[start], batches, test) for start in STARTS},
        "search_cpu_seconds": round(seconds, 1),
        "samples": {"train": SAMPLES, "test": TEST_SAMPLES},
        "config": asdict(searchable.config),
        "train": {**asdict(TRAIN), "autocast": "bfloat16"},
        "environment": {"data": data_note("cifar10"), **environment("cpu")},
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Give the lines of the table: mean accuracy of each start, and how much more of the warm one.

    The last column is the difference in the last epoch, of each seed.
    """
    lines = []
    for name in dict.fromkeys(row["recipe"] for row in rows):
        mine = sorted((r for r in rows if r["recipe"] == name), key=lambda row: row["seed"])
        fresh, warm = (100 * np.array([row[start] for row in mine]) for start in STARTS)
        for start, reached in zip(STARTS, (fresh, warm), strict=True):
            means = [f"{reached[:, epoch].mean():.2f}" for epoch in SHOWN]
            lines.append([f"`{name}`", start, *means, ""])
        more = warm - fresh
        means = [f"{more[:, epoch].mean():+.2f}" for epoch in SHOWN]
        lines.append(
            [f"`{name}`", "warm - fresh", *means, "  ".join(f"{d:+.2f}" for d in more[:, -1])]
        )
    return lines


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(Options, prog="bench:warm-start"), PlainConsole()
    path = options.out / "rows.jsonl"
    done = [(row["recipe"], row["seed"]) for row in read_rows(path)]
    jobs = [
        (path, (name, seed))
        for seed in range(options.seeds)
        for name in options.recipes
        if (name, seed) not in done
    ]
    run_jobs(console, "searches, each with two trainings", compare, jobs, options.workers)
    table = Table(title="ResNet-8 on CIFAR-10: test accuracy after so many epochs, %, means")
    for heading in ("recipe", "start", *map(str, SHOWN), "of each seed"):
        table.add_column(heading)
    rows = sorted(read_rows(path), key=lambda row: (row["recipe"], row["seed"]))
    for line in summary(rows):
        table.add_row(*line)
    console.print(table)


if __name__ == "__main__":
    main()
