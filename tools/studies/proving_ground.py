"""`hatch run bench:proving-ground`: deep networks, trained with found, original and other sizes.

Spaces of deep networks have too many plans for a table of all. Here each search's plan is trained
beside the network's own sizes, the plans of other methods at the same number of training steps, and
random plans of the same cost; all from the same seeds, on the same batches. One row a search or
training is appended to `results/proving-ground/TASK.jsonl`; existing rows are not repeated.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import torch
import tyro
from effconv_core import (
    Budget,
    Macs,
    SearchableCNN,
    SearchConfig,
    SizePlan,
    apply_plan,
    recipe,
    search,
)
from effconv_core.engine.train import TrainConfig, evaluate, train
from effconv_core.engine.within import PlansWithin
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment
from effconv_data import Batches, ResidentBatches, load, synthetic
from effconv_data.sequences import read_spoken_digits
from effconv_models import create_model
from torch import nn

from tools.studies.baselines import halving, tpe
from tools.studies.proving_page import FOLDER, summary
from tools.support.rows import read_rows, run_grid

FIRST = 100
"""The first seed; no setting was chosen on this or a later one, nor on these networks."""
RANDOM = 999
"""Seed of the random plans, which are the same for all seeds."""
ADAM = TrainConfig(12, 64, "adam", 3e-3, 0.0, "cosine", 1.0)
LOWER = replace(ADAM, precision="bfloat16")
PEERS = {"TPE": tpe, "halving": halving}


@dataclass(frozen=True)
class Task:
    """A deep network on a data set, searched at the cost of its own sizes."""

    make_batches: Callable[[str, int, int], Batches]
    """Returns the batches of a split for a seed and a number of samples."""
    make_network: Callable[[torch.Generator], nn.Module]
    """Returns the network with its own sizes, and initial values from a generator."""
    k: int
    """Sizes are 1 to 2k + 1."""
    train: TrainConfig = ADAM
    samples: int = 8000
    """Number of samples of each split, at most."""
    divide: Callable[[int, int], tuple[Batches, Batches]] | None = None
    """Returns for a seed and a number of samples what a search trains on, and its validation data;
    None trains on the training split, and holds out a part of its batches."""
    counted: tuple[int, ...] | None = None
    """Shape of an input, whose multiply-accumulates plans cost; None counts parameters."""

    def batches(self, split: str, seed: int) -> Batches:
        """Return the batches of a split for a seed."""
        return self.make_batches(split, seed, self.samples)

    def parts(self, seed: int) -> tuple[Batches, Batches | None]:
        """Return the batches that a search trains on for a seed, and its validation data."""
        if self.divide is None:
            return self.batches("train", seed), None
        return self.divide(seed, self.samples)

    def network(self, seed: int) -> nn.Module:
        """Build the network with its own sizes and initial values from the seed."""
        network = self.make_network(torch.Generator().manual_seed(seed))
        return network.to(memory_format=torch.channels_last)

    def searchable(self) -> SearchableCNN:
        """Return the network with the sizes of the task allowed."""
        return SearchableCNN(self.network(0), self.config)

    @property
    def config(self) -> SearchConfig:
        """The settings of the search."""
        return recipe("bank", k=self.k, precision=self.train.precision)

    @property
    def original(self) -> dict[str, int]:
        """The network's own sizes."""
        return dict(self.searchable().original_sizes)

    @property
    def budget(self) -> Budget:
        """The cost of the network's own sizes."""
        searchable = self.searchable()
        counter = None if self.counted is None else Macs(torch.zeros(1, *self.counted))
        cost = searchable.cost if counter is None else counter(searchable)
        return Budget(cost(list(self.original.values())), counter)

    def draw_plans(self, most: int, seed: int) -> list[dict[str, int]]:
        """Draw plans of the budget's cost, of sizes uniform on a logarithmic scale."""
        drawn = PlansWithin(self.searchable(), self.budget).random(most, seed)
        layers = list(self.original)
        return [dict(zip(layers, p, strict=True)) for p in drawn]


@lru_cache(maxsize=4)
def loaded(name: str, split: str, seed: int, samples: int) -> Batches:
    """Return the first samples of a set."""
    return load(name, split=split, batch_size=64, seed=seed, limit=samples)


def by_speaker(seed: int, samples: int) -> tuple[Batches, Batches]:
    """Return the training split of the spoken digits: of all speakers but the last, and of him."""
    whole = loaded("spoken-digits", "train", seed, samples)
    recordings = read_spoken_digits(os.environ["EFFCONV_DATA"], "train")
    audio, labels = recordings.audio[:samples], recordings.labels[:samples]
    last = recordings.by[:samples] == len(recordings.speakers) - 1
    options = {"classes": whole.classes, "batch_size": 64, "mean": whole.mean, "std": whole.std}
    return (
        ResidentBatches(audio[~last], labels[~last], seed=seed, **options),
        ResidentBatches(audio[last], labels[last], training=False, **options),
    )


@lru_cache(maxsize=4)
def planted(split: str, seed: int, samples: int) -> Batches:
    """Return patterns of scale 8, drawn in noise."""
    return synthetic(8.0, split=split, samples=samples, image_size=48, batch_size=64, seed=seed)


def depthwise(generator: torch.Generator) -> nn.Sequential:
    """Build six depthwise convolutions, each followed by a pointwise one, `(B, 3, H, W)` to 10."""
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32))
    widths = (32, 32, 64, 64, 128, 128, 128)
    for block, (c_in, c_out) in enumerate(pairwise(widths)):
        taps = nn.Conv2d(c_in, c_in, 3, 1 + (block in (1, 3)), padding=1, groups=c_in, bias=False)
        point = nn.Conv2d(c_in, c_out, 1, bias=False)
        for module in (taps, nn.BatchNorm2d(c_in), point, nn.BatchNorm2d(c_out), nn.ReLU()):
            network.append(module)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
    classifier = nn.Linear(128, 10)
    nn.init.normal_(classifier.weight, std=0.01, generator=generator)
    nn.init.zeros_(classifier.bias)
    return network.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier])


def made(name: str, **options: Any) -> Callable[[torch.Generator], nn.Module]:
    """Return a function that builds a network of the registry."""
    return lambda generator: create_model(name, generator=generator, **options)


DEPTHWISE = Task(partial(loaded, "cifar10"), depthwise, 3)
TASKS = {
    "smnist196": Task(partial(loaded, "smnist196"), made("resnet1d14", in_channels=1), 15),
    "smnist": Task(partial(loaded, "smnist"), made("resnet1d14", in_channels=1), 15),
    "spoken-digits": Task(
        partial(loaded, "spoken-digits"),
        made("resnet1d10", in_channels=1),
        15,
        replace(ADAM, epochs=20),
        divide=by_speaker,
    ),
    "planted": Task(
        planted, made("cifar_resnet20", in_channels=1, num_classes=4), 3, LOWER, samples=4000
    ),
    "cifar10-depthwise": DEPTHWISE,
    "cifar10-depthwise-macs": replace(DEPTHWISE, counted=(3, 32, 32)),
    "cifar10": Task(partial(loaded, "cifar10"), made("cifar_resnet20"), 3, LOWER),
}


@dataclass(frozen=True)
class ProvingGroundOptions:
    """Search deep networks, and train what is found beside original, random and peers' plans."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Which tasks."""
    seeds: int = 5
    """Number of searches, and of trainings of each plan."""
    randoms: int = 8
    """Number of random plans."""
    peers: tuple[str, ...] = tuple(PEERS)
    """Other methods, each given the training steps that the search took."""
    workers: int = 1
    """Processes, of one thread each."""
    out: Path = FOLDER
    """Folder of the rows."""


def search_once(task: str, seed: int) -> dict[str, Any]:
    """Search once; return the row."""
    torch.set_num_threads(1)
    settings, started = TASKS[task], time.process_time()
    config = replace(settings.config, seed=seed)
    batches, validation = settings.parts(seed)
    options = {"budget": settings.budget, "config": config, "validation": validation}
    plan: SizePlan = search(settings.network(seed), batches, **options)
    return {
        "work": "search",
        "method": "bank",
        "seed": seed,
        "plan": plan.evidence.found,
        "evidence": asdict(plan.evidence),
        "steps": sum(plan.evidence.spent.values()),
        "config": asdict(config),
        "validation": None if validation is None else len(validation),
        "cpu_seconds": round(time.process_time() - started, 1),
        "environment": environment("cpu"),
    }


def peer_once(task: str, name: str, steps: int, seed: int) -> dict[str, Any]:
    """Let another method find a plan within a number of steps; return the row."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    started = time.process_time()
    return {
        "work": "search",
        "method": name,
        "seed": seed,
        "plan": PEERS[name](TASKS[task], steps, seed),
        "steps": steps,
        "cpu_seconds": round(time.process_time() - started, 1),
        "environment": environment("cpu"),
    }


def train_once(task: str, method: str, plan: dict[str, int], seed: int) -> dict[str, Any]:
    """Train a plan to the end and test it; return the row."""
    torch.set_num_threads(1)
    settings, started = TASKS[task], time.process_time()
    generator = torch.Generator().manual_seed(seed)
    cnn = apply_plan(settings.network(seed), plan, generator=generator)
    cnn = cnn.to(memory_format=torch.channels_last)
    train(cnn, settings.batches("train", seed), settings.train)
    return {
        "work": "training",
        "method": method,
        "seed": seed,
        "plan": plan,
        "parameters": sum(parameter.numel() for parameter in cnn.parameters()),
        "accuracy": evaluate(cnn, settings.batches("test", seed)),
        "cpu_seconds": round(time.process_time() - started, 1),
        "environment": environment("cpu"),
    }


def random_plans(
    task: Task, most: int, rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, int]]:
    """Return random plans by name: those that rows have trained, whatever would be drawn today."""
    drawn = enumerate(task.draw_plans(most, RANDOM))
    trained = {row["method"]: row["plan"] for row in rows if row["work"] == "training"}
    return {f"random {n}": trained.get(f"random {n}", plan) for n, plan in drawn}


def run_seed(task: str, seed: int, options: ProvingGroundOptions, console: PlainConsole) -> None:
    """Run what the rows of a task lack of one seed: the searches, and a training of each plan."""
    path, settings = options.out / f"{task}.jsonl", TASKS[task]
    title = f"{task}, seed {seed}"

    def found() -> dict[str, dict[str, Any]]:
        rows = [r for r in read_rows(path) if r["work"] == "search" and r["seed"] == seed]
        return {row["method"]: row for row in rows}

    def search_key(method: str) -> dict[str, Any]:
        return {"work": "search", "method": method, "seed": seed}

    grid = [(path, search_key("bank"), (task, seed))]
    run_grid(console, f"{title}: search", search_once, grid, 1)
    steps = found()["bank"]["steps"]
    grid = [(path, search_key(name), (task, name, steps, seed)) for name in options.peers]
    run_grid(console, f"{title}: peers", peer_once, grid, options.workers)
    plans = {"original": settings.original}
    plans |= {name: row["plan"] for name, row in found().items()}
    plans |= random_plans(settings, options.randoms, read_rows(path))
    grid = [
        (path, {"work": "training", "method": m, "seed": seed, "plan": p}, (task, m, p, seed))
        for m, p in plans.items()
    ]
    run_grid(console, f"{title}: trainings", train_once, grid, options.workers)


def main() -> None:
    """Run the command line."""
    options = tyro.cli(ProvingGroundOptions, prog="bench:proving-ground")
    console = PlainConsole()
    for task in options.tasks:
        for seed in range(FIRST, FIRST + options.seeds):
            run_seed(task, seed, options, console)
            for line in summary(options.out / f"{task}.jsonl"):
                console.print(line, soft_wrap=True)


if __name__ == "__main__":
    main()
