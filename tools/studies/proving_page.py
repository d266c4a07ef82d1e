"""The page on searches of deep networks, made only from the raw results."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.support.markdown import provenance, render, table
from tools.support.rows import read_rows
from tools.support.stats import half_width, noise_floor
from tools.support.verdicts import verdict_now

FOLDER = Path("results/proving-ground")
PAGE = Path("docs/proving-ground.md")
TITLES = {
    "smnist196": "MNIST as sequences of 196 steps, 1D ResNet-14",
    "smnist": "MNIST as sequences of 784 steps, 1D ResNet-14",
    "spoken-digits": "Spoken digits, 4096 steps of raw audio, speakers apart, 1D ResNet-10",
    "planted": "Drawn patterns of scale 8, 48x48, ResNet-20",
    "cifar10-depthwise": "CIFAR-10 (re-encoded as JPEG), six depthwise blocks",
    "cifar10-depthwise-macs": "CIFAR-10 (re-encoded as JPEG), six depthwise blocks, at the same "
    "number of multiply-accumulates",
    "cifar10": "CIFAR-10 (re-encoded as JPEG), ResNet-20",
}
NOTES = {
    "smnist196": "TPE and halving had 3 % more steps than the searches of version 0.8.0, and 2.4 % "
    "fewer than those of 0.7.0.",
    "smnist": "TPE had as many steps as the searches of version 0.7.0 with seeds 100 and 101, 5 % "
    "more than those of 0.8.1; with the other seeds it had as many as these, and so had halving.",
    "cifar10-depthwise-macs": "TPE had as many steps as the search of version 0.8.0 with seed 104, "
    "and as those of 0.7.0, 6 % more, with the others. Its plans cost 1.5 to 1.9 % more than the "
    "network's own sizes; those found by 0.8.0 from 0.1 % less to 1.3 % more.",
    "spoken-digits": "The test has two speakers, the training four others. A search trains on "
    "three of these and compares plans on the fourth (`validation=`); what is found is trained on "
    "all.",
    **dict.fromkeys(("planted", "cifar10"), "Searches and trainings compute in bfloat16."),
}
HEADINGS = ("sizes", "trainings", "accuracy", "less original", "seeds in which it is better")


def proving_page(folder: Path = FOLDER) -> str:
    """Return the page of the tasks that have rows."""
    tasks = [(title, folder / f"{name}.jsonl") for name, title in TITLES.items()]
    return render(
        "proving-ground.md.jinja",
        tasks=[
            (title, path, facts(path), summary(path), NOTES.get(path.stem))
            for title, path in tasks
            if path.is_file()
        ],
        missing=[title for title, path in tasks if not path.is_file()],
    )


def accuracies(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Return, for each method or random plan, seed to test accuracy."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in rows:
        if row["work"] == "training":
            found[row["method"]][row["seed"]] = row["accuracy"]
    return dict(found)


def summary(path: Path) -> list[str]:
    """Return the lines of a table of all that was trained; randoms are one line of their means."""
    found = accuracies(read_rows(path))
    original = found["original"]
    named = {"bank": "found by `bank`", "original": "the network's own"}
    lines = []
    for method in ("original", "bank", *sorted(set(found) - {"original", "bank"})):
        if not method.startswith("random") and method in found:
            lines.append(_line(named.get(method, f"found by {method}"), found[method], original))
    randoms = {name: by_seed for name, by_seed in found.items() if name.startswith("random")}
    if randoms:
        means = {name: float(np.mean(list(by.values()))) for name, by in randoms.items()}
        ends = {"worst": min(means, key=means.get), "best": max(means, key=means.get)}
        for which, name in ends.items():
            lines.append(_line(f"{which} of {len(randoms)} random plans", randoms[name], original))
        picked = _picked(randoms)
        if picked:
            lines.append(_line("random plan, the best in the seed before", picked, original))
    return table(HEADINGS, lines)


def facts(path: Path) -> dict[str, Any]:
    """Return what the rows of a task say beside its table."""
    rows = read_rows(path)
    searches = [row for row in rows if row["work"] == "search" and row["method"] == "bank"]
    found = accuracies(rows)
    complete = [by for by in found.values() if len(by) == max(map(len, found.values()))]
    grid = np.array([[by[seed] for seed in sorted(by)] for by in complete])
    original = found["original"]
    said = defaultdict(list)
    for row in searches:
        if row["seed"] in original and row["seed"] in found["bank"]:
            gain = found["bank"][row["seed"]] - original[row["seed"]]
            said[verdict_now(row["evidence"])].append(f"{100 * gain:+.1f}")
    return {
        "steps": int(np.median([row["steps"] for row in searches])),
        "seconds": float(np.median([row["cpu_seconds"] for row in searches])),
        "training": float(
            np.median([row["cpu_seconds"] for row in rows if row["work"] == "training"])
        ),
        "floor": 100 * noise_floor(grid) if grid.shape[1] > 1 and len(grid) > 1 else None,
        "said": dict(said),
        "sizes": [json.dumps(list(row["plan"].values())) for row in searches],
        "versions": sorted({row["environment"]["effconv-core"] for row in searches}),
        "provenance": sorted({provenance(row["environment"]) for row in rows}),
    }


def _picked(randoms: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """Return the accuracy by seed of the plan that was the best with the seed before it."""
    seeds = sorted(set.intersection(*(set(by) for by in randoms.values())))
    picked = {}
    for before, seed in zip(seeds[-1:] + seeds, seeds, strict=False):
        if before != seed:
            picked[seed] = max(randoms.values(), key=lambda by: by[before])[seed]
    return picked


def _line(name: str, by_seed: Mapping[int, float], original: Mapping[int, float]) -> list[str]:
    gains = [100 * (by_seed[seed] - original[seed]) for seed in sorted(by_seed) if seed in original]
    difference = "" if by_seed is original else f"{np.mean(gains):+.2f}"
    if len(gains) > 2 and by_seed is not original:
        difference += f" ± {half_width(gains):.2f}"
    better = "" if by_seed is original else f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
    mean = 100 * np.mean(list(by_seed.values()))
    return [name, str(len(by_seed)), f"{mean:.2f} %", difference, better]
