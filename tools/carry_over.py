"""`hatch run bench:carry-over`: the default recipe, untuned, on ResNet-20 and CIFAR-10.

The found plan of each seed is trained from scratch beside 3x3 kernels and random plans of the same
cost, all alike, in bfloat16 where PyTorch's autocast allows. Searches and trainings are kept in
`results/carry-over`, and not run twice.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from effconv_core import SearchableCNN, SizePlan, apply_plan, recipe, search
from effconv_core.io.console import PlainConsole
from effconv_core.run_files import environment
from effconv_core.training import TrainConfig, evaluate, train
from effconv_data import Batches, load
from effconv_models import create_model
from rich.table import Table
from torch import Tensor, nn

from tools.jobs import read_rows, run_jobs
from tools.presets import data_note
from tools.spaces import random_plan

SAMPLES = 12_000
TRAIN = TrainConfig(10, 128, "sgd", 0.1, 5e-4, "cosine", 1.0)
RANDOM_PLANS = 6


@dataclass(frozen=True)
class Options:
    """Search ResNet-20 on CIFAR-10, and train what was found beside uniform and random plans."""

    seeds: int = 2
    """Searches, and trainings of each plan."""
    workers: int = 2
    """Processes, of one thread each."""
    out: Path = Path("results/carry-over")
    """Folder of the searches and trainings."""


class Autocast(nn.Module):
    """A network that runs in bfloat16 where that is safe."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Run the network."""
        with torch.autocast("cpu", torch.bfloat16):
            outputs = self.network(images)
        return outputs.float()


def network(seed: int) -> nn.Module:
    """Make ResNet-20, with sizes 3."""
    generator = torch.Generator().manual_seed(seed)
    resnet = create_model("cifar_resnet20", generator=generator)
    return resnet.to(memory_format=torch.channels_last)


def pictures(split: str, seed: int) -> Batches:
    """Give the pictures: a part of the training set, the whole test set."""
    limit = SAMPLES if split == "train" else None
    return load("cifar10", split=split, batch_size=TRAIN.batch_size, seed=seed, limit=limit)


def budget() -> int:
    """Give the parameter count of ResNet-20 with sizes 3."""
    return sum(parameter.numel() for parameter in network(0).parameters())


def search_once(seed: int) -> dict:
    """Search once; give the row."""
    torch.set_num_threads(1)
    config, batches = recipe("default", seed=seed), pictures("train", seed)
    started = time.process_time()
    plan: SizePlan = search(network(seed), batches, budget=budget(), config=config)
    return {
        "seed": seed,
        "plan": plan.sizes,
        "soft_sizes": {layer: round(v, 3) for layer, v in plan.soft_sizes.items()},
        "parameters": plan.cost,
        "cpu_seconds": round(time.process_time() - started, 1),
        "config": asdict(config),
        "environment": {"data": data_note("cifar10"), **environment("cpu")},
    }


def random_plans() -> list[dict[str, int]]:
    """Draw plans of the budget's cost."""
    searchable, generator = SearchableCNN(network(0)), torch.Generator().manual_seed(0)
    return [random_plan(searchable, budget(), generator) for _ in range(RANDOM_PLANS)]


def train_once(kind: str, plan: dict[str, int], seed: int) -> dict:
    """Train a plan once; give the row."""
    torch.set_num_threads(1)
    batches = pictures("train", seed)
    started = time.process_time()
    generator = torch.Generator().manual_seed(seed)
    cnn = Autocast(apply_plan(network(seed), plan, generator=generator))
    cnn = cnn.to(memory_format=torch.channels_last)
    train(cnn, batches, TRAIN)
    seconds = time.process_time() - started
    return {
        "kind": kind,
        "seed": seed,
        "plan": plan,
        "parameters": sum(parameter.numel() for parameter in cnn.parameters()),
        "accuracy": evaluate(cnn, pictures("test", seed)),
        "cpu_seconds": round(seconds, 1),
        "train": {"samples": SAMPLES, **asdict(TRAIN), "autocast": "bfloat16"},
        "environment": {"data": data_note("cifar10"), **environment("cpu")},
    }


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="bench:carry-over")
    console = PlainConsole()
    searches, trainings = options.out / "searches.jsonl", options.out / "trainings.jsonl"
    done = {row["seed"] for row in read_rows(searches)}
    jobs = [(searches, (seed,)) for seed in range(options.seeds) if seed not in done]
    run_jobs(console, "searches", search_once, jobs, options.workers)

    plans = [
        (f"found {row['seed']}", row["plan"])
        for row in sorted(read_rows(searches), key=lambda row: row["seed"])
    ]
    uniform = dict.fromkeys(plans[0][1], 3)
    plans += [("uniform", uniform)]
    plans += [(f"random {i}", plan) for i, plan in enumerate(random_plans())]
    done = [(row["kind"], row["plan"], row["seed"]) for row in read_rows(trainings)]
    jobs = [
        (trainings, (kind, plan, seed))
        for seed in range(options.seeds)
        for kind, plan in plans
        if (kind, plan, seed) not in done
    ]
    run_jobs(console, "trainings", train_once, jobs, options.workers)

    table = Table(title="ResNet-20 on CIFAR-10, trained alike from scratch")
    for heading in ("plan", "sizes", "parameters", "test accuracy of each seed, %", "mean"):
        table.add_column(heading)
    rows = read_rows(trainings)
    for kind, plan in plans:
        mine = [row for row in rows if (row["kind"], row["plan"]) == (kind, plan)]
        reached = [100 * row["accuracy"] for row in sorted(mine, key=lambda row: row["seed"])]
        table.add_row(
            kind,
            " ".join(map(str, plan.values())),
            f"{mine[0]['parameters']:,}",
            "  ".join(f"{accuracy:.2f}" for accuracy in reached),
            f"{np.mean(reached):.2f}",
        )
    console.print(table)
    seconds = [
        np.median([row["cpu_seconds"] for row in found])
        for found in (read_rows(searches), [row for row in rows if row["kind"] == "uniform"])
    ]
    console.print(
        f"A search took {seconds[0]:.0f} s of the processor, a training of 3x3 {seconds[1]:.0f} s "
        "(the search in float32)."
    )


if __name__ == "__main__":
    main()
