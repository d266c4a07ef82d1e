"""`hatch run bench:score`: where the plans of each recipe, and of its peers, stand among all plans.

Searches are kept in `results/score/SPACE.jsonl`, one row each, and not run twice; the printed table
is made from those rows and from the tables.
"""

import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import torch
import tyro
from effconv_core import rank_plan, recipe, search
from rich.console import Console
from rich.table import Table

from tools.ground_truth import FOLDER
from tools.jobs import read_rows, run_jobs
from tools.peers import halving, tpe
from tools.run_folder import environment
from tools.spaces import SPACES

SMOOTH = {"budget_form": "smooth", "budget_weight": 20.0, "epochs": 12}
RATES = {"size_lr": 1e-2, "kernel_lr": 5e-3, "cnn_lr": 5e-3}
RING = recipe("default")
RECIPES = {
    "paper": recipe("paper", epochs=12),
    "smooth": recipe("paper", **SMOOTH, size_lr=1e-3),
    "fast": recipe("paper", **SMOOTH, **RATES, centre="aligned"),
    "fast, bank": recipe("paper", **SMOOTH, **RATES, centre="aligned", kernel_form="bank"),
    "default": RING,
    "default, no finalists": replace(RING, finalists=1),
    "default, no exploration": replace(RING, finalists=1, exploration=0.0),
    "default, Gaussian": replace(RING, mask="gaussian", centre="aligned"),
}
PEERS = {"TPE": tpe, "halving": halving}


@dataclass(frozen=True)
class Options:
    """Search with each recipe and peer in each space, and print where the plans stand."""

    spaces: tuple[str, ...] = tuple(SPACES)
    """Which spaces; each needs its ground-truth table."""
    recipes: tuple[str, ...] = (*RECIPES, *PEERS)
    """Which recipes and peers."""
    seeds: int = 10
    """Searches of each recipe in each space."""
    workers: int = 2
    """Processes, of one thread each."""
    tables: Path = FOLDER
    """Folder of the ground-truth tables."""
    out: Path = Path("results/score")
    """Folder of the searches."""


def search_once(space: str, name: str, seed: int) -> dict:
    """Search once; give the row."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = SPACES[space]
    settings.batches("train", seed)  # reading or drawing the data is no part of the cost
    started = time.process_time()
    if name in PEERS:
        found = {"plan": PEERS[name](space, seed)}
    else:
        config = replace(RECIPES[name], seed=seed)
        plan = search(
            settings.network(seed),
            settings.batches("train", seed),
            budget=settings.budget,
            config=config,
        )
        found = {
            "plan": plan.sizes,
            "soft_sizes": {layer: round(v, 4) for layer, v in plan.soft_sizes.items()},
            "adjusted": plan.adjusted,
            "parameters": plan.cost,
            "config": asdict(config),
        }
    return {
        "recipe": name,
        "seed": seed,
        **found,
        "cpu_seconds": round(time.process_time() - started, 2),
        "environment": environment("cpu"),
    }


def truth(space: str, folder: Path) -> tuple[list[dict[str, int]], np.ndarray]:
    """Give the plans of a space and their accuracies `(P, seeds)` from its ground-truth table.

    Raises:
        ValueError: if a plan was trained less often than another, or not at all.
    """
    path = folder / f"{SPACES[space].table or space}.jsonl"
    accuracies: dict[str, dict[int, float]] = defaultdict(dict)
    for row in read_rows(path)[1:]:
        accuracies[json.dumps(row["plan"])][row["seed"]] = row["accuracy"]
    plans = SPACES[space].plans()
    table = [accuracies[json.dumps(plan)] for plan in plans]
    counts = {len(by_seed) for by_seed in table}
    if len(counts) != 1 or counts == {0}:
        raise ValueError(
            f"{path} holds {sorted(counts)} trainings of a plan of {space}; run "
            "bench:ground-truth to its end"
        )
    return plans, np.array([[by_seed[seed] for seed in sorted(by_seed)] for by_seed in table])


def interval(values: np.ndarray) -> tuple[float, float]:
    """Give the 95 % bootstrap interval of a mean."""
    generator = np.random.default_rng(0)
    draws = generator.choice(values, (10_000, len(values))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def noise_floor(accuracies: np.ndarray) -> float:
    """Give the smallest difference of two plans' means that counts, at two standard errors.

    Seeds are shared by all plans, so what a seed does to all of them alike is no noise.
    """
    rest = accuracies - accuracies.mean(axis=0) - accuracies.mean(axis=1, keepdims=True)
    rest += accuracies.mean()
    P, S = accuracies.shape
    variance = (rest**2).sum() / ((P - 1) * (S - 1))
    return 2 * float(np.sqrt(2 * variance / S))


def summary(space: str, options: Options) -> list[list[str]]:
    """Give the rows of the printed table for one space."""
    plans, accuracies = truth(space, options.tables)
    means = accuracies.mean(axis=1)
    rows = []

    def add(name: str, percentiles: np.ndarray, regrets: np.ndarray) -> None:
        low, high = interval(percentiles)
        # Random plans have the table's mean accuracy.
        gains = (means.max() - means.mean()) - regrets
        gain_low, gain_high = interval(gains)
        rows.append(
            [
                space,
                name,
                str(len(percentiles)),
                f"{percentiles.mean():.0f} [{low:.0f}, {high:.0f}]",
                f"{100 * regrets.mean():.2f}",
                f"{100 * gains.mean():+.2f} [{100 * gain_low:+.2f}, {100 * gain_high:+.2f}]",
            ]
        )

    uniform = rank_plan(dict.fromkeys(plans[0], SPACES[space].uniform), plans, accuracies)
    noise = f"{len(plans)} plans, {100 * means.min():.1f} to {100 * means.max():.1f} %"
    rows.append([space, noise, "", "", f"noise floor {100 * noise_floor(accuracies):.2f}", ""])
    rows.append(
        [space, "random (expected)", "", "50", f"{100 * (means.max() - means.mean()):.2f}", ""]
    )
    add("uniform", np.array([uniform.percentile]), np.array([uniform.regret]))
    found = read_rows(options.out / f"{space}.jsonl")
    for name in options.recipes:
        scores = [
            rank_plan(row["plan"], plans, accuracies) for row in found if row["recipe"] == name
        ]
        if scores:
            add(
                name,
                np.array([score.percentile for score in scores]),
                np.array([score.regret for score in scores]),
            )
    return rows


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="bench:score")
    jobs = []
    for space in options.spaces:
        path = options.out / f"{space}.jsonl"
        done = {(row["recipe"], row["seed"]) for row in read_rows(path)}
        jobs += [
            (path, (space, name, seed))
            for name in options.recipes
            for seed in range(options.seeds)
            if (name, seed) not in done
        ]
    console = Console()
    run_jobs(console, "searches", search_once, jobs, options.workers)

    table = Table(title="plans of a search among all plans at its budget")
    headings = ("space", "recipe", "searches", "percentile", "regret, points", "gain over random")
    for heading in headings:
        table.add_column(heading)
    for space in options.spaces:
        for row in summary(space, options):
            table.add_row(*row)
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
