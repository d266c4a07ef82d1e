"""`hatch run bench:score`: ranks of the plans of each recipe and baseline among all plans.

Searches are stored in `results/score/SPACE.jsonl`, one row each, and not repeated; the printed
table is made from those rows and from the tables.
"""

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import tyro
from effconv_core import PlanScore, SearchableCNN, rank_plan, recipe, search
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment

from tools.studies.baselines import halving, steps_allowed, tpe
from tools.studies.exhaustive import FOLDER
from tools.studies.small_spaces import SPACES
from tools.support.console import show
from tools.support.rows import current_rows, read_rows, run_grid
from tools.support.stats import bootstrap_interval, noise_floor
from tools.support.verdicts import verdict_now

SMOOTH = {"budget_form": "smooth", "budget_weight": 20.0, "epochs": 12}
RATES = {"size_lr": 1e-2, "kernel_lr": 5e-3, "cnn_lr": 5e-3}
# The recipe `bank` before 0.5.0, then called `default`.
RING = recipe("bank", epochs=2, least_steps=0, finalists=24, race_steps=0)
RECIPES = {
    "paper": recipe("paper", epochs=12),
    "smooth": recipe("paper", **SMOOTH, size_lr=1e-3),
    "fast": recipe("paper", **SMOOTH, **RATES, centre="aligned"),
    "fast, bank": recipe("paper", **SMOOTH, **RATES, centre="aligned", kernel_form="bank"),
    "bank": recipe("bank"),
    "default": RING,
    "default, no finalists": replace(RING, finalists=1),
    "default, no exploration": replace(RING, finalists=1, exploration=0.0),
    "default, Gaussian": replace(RING, mask="gaussian", centre="aligned"),
}
SPEED = {
    "default, bfloat16": replace(RING, precision="bfloat16"),
    "default, padded": replace(RING, shapes="padded"),
    "default, padded, bfloat16": replace(RING, shapes="padded", precision="bfloat16"),
    "default, compiled": replace(RING, shapes="padded", compile=True),
    "default, nudged": RING,
}
"""Other ways to run the same steps, compared on request; and the usual way with all initial values
one bit larger, to show the effect of rounding on a search."""
PEERS = {"TPE": tpe, "halving": halving}
FRESH, FRESH_BANK = 10, 90
"""The first seeds of those not used to choose the settings of the former default recipe, and of the
recipe `bank` of today."""


@dataclass(frozen=True)
class ScoreOptions:
    """Search with each recipe and baseline in each space, and print the ranks of the plans."""

    spaces: tuple[str, ...] = tuple(SPACES)
    """Which spaces; each needs its ground-truth table."""
    recipes: tuple[str, ...] = (*RECIPES, *PEERS)
    """Recipes and baselines; or ways to run the default one, such as `default, bfloat16`."""
    seeds: int = 10
    """Number of searches of each recipe in each space; seeds start at 90 for the recipe `bank`, at
    10 for the former default recipe, its variants and the baselines, since lower ones chose their
    settings, and at 0 for others."""
    workers: int = 2
    """Processes, of one thread each."""
    tables: Path = FOLDER
    """Folder of the ground-truth tables."""
    out: Path = Path("results/score")
    """Folder of the searches."""


def search_once(space: str, name: str, seed: int) -> dict:
    """Search once; return the row."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = SPACES[space]
    settings.batches("train", seed)  # reading or drawing the data is not part of the cost
    started = time.process_time()
    if name in PEERS:
        found = {"plan": PEERS[name](settings, steps_allowed(settings), seed)}
    else:
        config = replace((RECIPES | SPEED)[name], seed=seed)
        network = settings.network(seed)
        if name == "default, nudged":
            with torch.no_grad():
                for values in network.parameters():
                    values *= 1 + torch.finfo(values.dtype).eps
        plan = search(
            network,
            settings.batches("train", seed),
            budget=settings.budget,
            config=config,
        )
        found = {
            "plan": plan.sizes,
            "soft_sizes": {layer: round(v, 4) for layer, v in plan.soft_sizes.items()},
            "adjusted": plan.adjusted,
            "parameters": plan.cost,
            "evidence": plan.evidence and asdict(plan.evidence),
            "config": asdict(config),
        }
    return {
        "recipe": name,
        "seed": seed,
        **found,
        "cpu_seconds": round(time.process_time() - started, 2),
        "environment": environment("cpu"),
    }


def truth(
    space: str, folder: Path, *, every: bool = False
) -> tuple[list[dict[str, int]], np.ndarray]:
    """Return the plans of a space and their accuracies `(P, seeds)` from its ground-truth table.

    Args:
        space: name of the space.
        folder: folder of the tables.
        every: whether to return all plans of the table, not only those near the space's budget.

    Raises:
        ValueError: if a plan was trained less often than another, or not at all.
    """
    path = folder / f"{SPACES[space].table or space}.jsonl"
    accuracies: dict[str, dict[int, float]] = defaultdict(dict)
    for row in read_rows(path)[1:]:
        accuracies[json.dumps(row["plan"])][row["seed"]] = row["accuracy"]
    plans = SPACES[space].table_plans() if every else SPACES[space].plans()
    table = [accuracies[json.dumps(plan)] for plan in plans]
    counts = {len(by_seed) for by_seed in table}
    if len(counts) != 1 or counts == {0}:
        raise ValueError(
            f"{path} holds {sorted(counts)} trainings of a plan of {space}; run "
            "bench:ground-truth to its end"
        )
    return plans, np.array([[by_seed[seed] for seed in sorted(by_seed)] for by_seed in table])


def reversed_plan(space: str, plan: dict[str, int]) -> dict[str, int]:
    """Return a plan's sizes to the layers in the opposite order, brought back to the budget."""
    searchable = SearchableCNN(SPACES[space].network(0))
    backwards = [float(size) for size in reversed(plan.values())]
    sizes = searchable.nearest_sizes(backwards, SPACES[space].budget)
    return dict(zip(plan, sizes, strict=True))


def plan_now(space: str, row: Mapping[str, Any]) -> dict[str, int]:
    """Return the plan that a search ends with by the present rule of its verdict."""
    evidence = row.get("evidence")
    if not evidence:
        return row["plan"]
    original = dict.fromkeys(row["plan"], 3)
    stays = original in SPACES[space].plans() and verdict_now(evidence) != "better"
    return original if stays else evidence["found"]


def trained_once(plans: list[dict[str, int]], accuracies: np.ndarray) -> list[PlanScore]:
    """Score the best plan of each training by the other trainings.

    No search can be expected to do better: the distance to the best is the noise of the trainings.
    """
    return [
        rank_plan(plans[accuracies[:, s].argmax()], plans, np.delete(accuracies, s, axis=1))
        for s in range(accuracies.shape[1])
    ]


def summary(space: str, options: ScoreOptions) -> list[list[str]]:
    """Return the rows of the printed table for one space."""
    plans, accuracies = truth(space, options.tables)
    means = accuracies.mean(axis=1)
    random_regret = means.max() - means.mean()  # the mean loss of a random plan
    trainings = read_rows(options.tables / f"{SPACES[space].table or space}.jsonl")[1:]
    training = np.median([row["cpu_seconds"] for row in trainings if row["plan"] in plans])
    found = read_rows(options.out / f"{space}.jsonl")

    def line(name: str, chosen: list[dict[str, int]], seconds: Sequence[float]) -> list[str]:
        return scored(name, [rank_plan(plan, plans, accuracies) for plan in chosen], seconds)

    def scored(name: str, scores: list[PlanScore], seconds: Sequence[float]) -> list[str]:
        percentiles = np.array([score.percentile for score in scores])
        gains = random_regret - np.array([score.regret for score in scores])
        low, high = bootstrap_interval(percentiles)
        gain_low, gain_high = bootstrap_interval(gains)
        return [
            space,
            name,
            str(len(scores)),
            f"{percentiles.mean():.0f} [{low:.0f}, {high:.0f}]",
            f"{100 * (random_regret - gains.mean()):.2f}",
            f"{100 * gains.mean():+.2f} [{100 * gain_low:+.2f}, {100 * gain_high:+.2f}]",
            f"{np.median(seconds) / training:.2f}" if len(seconds) else "",
        ]

    spread = f"{len(plans)} plans, {100 * means.min():.1f} to {100 * means.max():.1f} %"
    rows = [
        [space, spread, "", "", f"noise floor {100 * noise_floor(accuracies):.2f}", "", ""],
        [space, "random (expected)", "", "50", f"{100 * random_regret:.2f}", "", ""],
        line("uniform", [dict.fromkeys(plans[0], SPACES[space].uniform)], []),
    ]
    if accuracies.shape[1] > 1:
        once = trained_once(plans, accuracies)
        rows.append(scored("all trained once", once, [training * len(plans)]))
    for name in options.recipes:
        mine = [row for row in found if row["recipe"] == name]
        if mine:
            seconds = [row["cpu_seconds"] for row in mine if "cpu_seconds" in row]
            rows.append(line(name, [plan_now(space, row) for row in mine], seconds))
        if mine and name == "default":
            rows.append(
                line("default, reversed", [reversed_plan(space, row["plan"]) for row in mine], [])
            )
    return rows


def rounding(space: str, options: ScoreOptions) -> list[list[str]]:
    """Return the rows on the effect of rounding soft sizes to a plan, if all plans were trained."""
    plans, accuracies = truth(space, options.tables, every=True)
    reached = {json.dumps(plan): mean for plan, mean in zip(plans, accuracies.mean(1), strict=True)}
    searchable = SearchableCNN(SPACES[space].network(0))
    rows = []
    for name in options.recipes:
        found = read_rows(options.out / f"{space}.jsonl")
        mine = [row for row in found if row["recipe"] == name and "soft_sizes" in row]
        if not mine:
            continue
        rounded = [{layer: round(v) for layer, v in row["soft_sizes"].items()} for row in mine]
        costs = np.array([searchable.cost(list(plan.values())) for plan in rounded])
        lost = [
            reached[json.dumps(plain)] - reached[json.dumps(row["plan"])]
            for plain, row in zip(rounded, mine, strict=True)
        ]
        rows.append(
            [
                space,
                name,
                f"{100 * (costs / SPACES[space].budget - 1).mean():+.1f}",
                f"{sum(plain != row['plan'] for plain, row in zip(rounded, mine, strict=True))}"
                f" of {len(mine)}",
                f"{100 * np.mean(lost):+.2f}",
            ]
        )
    return rows


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(ScoreOptions, prog="bench:score"), PlainConsole()
    grid = []
    for space in options.spaces:
        path = options.out / f"{space}.jsonl"
        current_rows(path, "recipe", RECIPES | SPEED)
        for name in options.recipes:
            first = FRESH if name.startswith("default") or name in PEERS else 0
            first = FRESH_BANK if name == "bank" else first
            for seed in range(first, first + options.seeds):
                grid.append((path, {"recipe": name, "seed": seed}, (space, name, seed)))
    run_grid(console, "searches", search_once, grid, options.workers)
    show(
        console,
        "plans of a search among all plans at its budget",
        (
            "space",
            "recipe",
            "searches",
            "percentile [95 %]",
            "regret, points",
            "gain over random, points [95 %]",
            "search / training",
        ),
        [row for space in options.spaces for row in summary(space, options)],
    )
    tables = [space for space in options.spaces if SPACES[space].table]
    show(
        console,
        "soft sizes rounded plainly, beside the plan",
        ("space", "recipe", "cost off the budget, %", "another plan", "accuracy, points"),
        [row for space in tables for row in rounding(space, options)],
    )


if __name__ == "__main__":
    main()
