"""The table of the comparison, and docs/versus.md, which holds it."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from tools.support.console import show
from tools.support.markdown import render
from tools.support.rows import read_rows
from tools.support.stats import half_width

PAGE = Path("docs/versus.md")
RESULTS = Path("results/versus")
METHODS = {
    "EffConv": "EffConv, recipe bank",
    "uniform": "3x3 everywhere",
    "random": "random plans",
    "TPE": "Optuna's TPE",
    "AutoNAS": "ModelOpt's AutoNAS, from 7x7",
}
HEADINGS = (
    "sizes from",
    "parameters",
    "accuracy, %",
    "trainings",
    "search, epochs",
    "search, s",
    "training, s",
    "total, s",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """The results of one method."""

    method: str
    searches: list[Row]
    trainings: list[Row]
    failed: list[Row]

    def cells(self) -> list[str]:
        """Return the line of the table."""
        name = METHODS[self.method]
        if not self.trainings:
            return [name, "not run", *[""] * (len(HEADINGS) - 2)]
        accuracies = [100 * row["accuracy"] for row in self.trainings]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        parameters = sorted({row["parameters"] for row in self.trainings})
        training = statistics.mean(row["seconds"] for row in self.trainings)
        epochs, seconds = "0", 0.0
        if self.searches:
            epochs = f"{statistics.mean(row['epochs'] for row in self.searches):.2f}"
            seconds = statistics.mean(row["seconds"] for row in self.searches)
        return [
            name,
            " to ".join(f"{n:,}" for n in (parameters[0], parameters[-1])[: len(parameters)]),
            f"{statistics.mean(accuracies):.2f}{spread}",
            str(len(accuracies)),
            epochs,
            f"{seconds:.1f}",
            f"{training:.1f}",
            f"{seconds + training:.1f}",
        ]


def lines(rows: Sequence[Row]) -> list[Line]:
    """Group the rows by method; the random plans count as one."""
    return [
        Line(
            method,
            [row for row in rows if row.get("run") == "search" and _is(row, method, "plan")],
            [row for row in rows if row.get("run") == "training" and _is(row, method, "plan")],
            [row for row in rows if _is(row, method, "failed")],
        )
        for method in METHODS
    ]


def _is(row: Row, method: str, entry: str) -> bool:
    return entry in row and row["method"].split()[0] == method


def print_table(console: Console, path: Path) -> None:
    """Print the results of one scale.

    Raises:
        FileNotFoundError: if there are none.
    """
    _, *rows = read_rows(path) or [None]
    if not rows:
        raise FileNotFoundError(f"{path} holds no results; run bench:versus without --report")
    title = f"kernel sizes at equal parameters and training, {path.stem}"
    show(console, title, HEADINGS, [line.cells() for line in lines(rows)])
    for part in (highest(rows), *outcome(rows), *sizes(rows), *failures(rows)):
        for text in part.splitlines() or [""]:
            console.print(text, soft_wrap=True)


def outcome(rows: Sequence[Row]) -> list[str]:
    """Return sentences on EffConv's plans against each of the others, paired by seed."""
    by_method = {line.method: _by_seed(line.trainings) for line in lines(rows)}
    mine, told = by_method.pop("EffConv"), []
    for method, others in by_method.items():
        differences = [
            100 * (statistics.mean(mine[seed]) - statistics.mean(others[seed]))
            for seed in sorted(mine.keys() & others.keys())
        ]
        if not differences:
            continue
        mean, sentence = statistics.mean(differences), f"EffConv against {METHODS[method]}: "
        if len(differences) == 1:
            sentence += f"{mean:+.2f} points, one pair, so no interval."
        else:
            half = half_width(differences)
            verdict = "better" if mean > half else "worse" if mean < -half else ""
            told_as = f"{verdict} beyond the interval" if verdict else "no difference can be told"
            sentence += (
                f"{told_as}, {mean:+.2f} points (95 % interval {mean - half:+.2f} to "
                f"{mean + half:+.2f}, {len(differences)} seeds)."
            )
        told.append(sentence)
    return told


def highest(rows: Sequence[Row]) -> str:
    """Return a sentence with the method whose plans are best on average."""
    means = {
        line.method: statistics.mean(100 * row["accuracy"] for row in line.trainings)
        for line in lines(rows)
        if line.trainings
    }
    if not means:
        return "Nothing was trained yet."
    best = max(means, key=means.__getitem__)
    return f"The highest mean is that of {METHODS[best]}: {means[best]:.2f} %."


def _by_seed(trainings: Sequence[Row]) -> dict[int, list[float]]:
    found = defaultdict(list)
    for row in trainings:
        found[row["seed"]].append(row["accuracy"])
    return found


def sizes(rows: Sequence[Row]) -> list[str]:
    """Return the sizes of each plan, from the first searched layer to the last, and how it did."""
    plans = defaultdict(list)
    for row in rows:
        if row.get("run") == "training":
            seed = f", seed {row['seed']}" if row["method"] in ("EffConv", "TPE", "AutoNAS") else ""
            name = f"{row['method']}{seed}"
            plans[name, " ".join(map(str, row["plan"].values())), row["parameters"]].append(row)
    order = list(METHODS)
    return [
        f"{name:16} {plan}  {parameters:,}  "
        + "  ".join(f"{100 * row['accuracy']:.2f}" for row in found)
        for (name, plan, parameters), found in sorted(
            plans.items(), key=lambda entry: (order.index(entry[1][0]["method"].split()[0]), entry)
        )
    ]


def failures(rows: Sequence[Row]) -> list[str]:
    """Return sentences on what did not run, and why."""
    return sorted(
        {f"{row['method']} did not run: {row['failed']}" for row in rows if "failed" in row}
    )


def versus_page() -> str:
    """Return the page, made of the results that there are."""
    scales = []
    for scale in ("gpu", "cpu"):
        header, *rows = read_rows(RESULTS / f"{scale}.jsonl") or [None]
        scales.append({"name": scale, **(_section(header, rows) if rows else {"settings": None})})
    return render("versus.md.jinja", scales=scales, headings=HEADINGS)


def _section(settings: Row, rows: Sequence[Row]) -> Row:
    """Return what the page says of one scale."""
    environments = [row["environment"] for row in rows]
    commits = ", ".join(sorted({environment["commit"] for environment in environments}))
    return {
        "settings": settings,
        "environment": {**environments[0], "commit": commits},
        "outcome": [highest(rows), *outcome(rows)],
        "network": _network(settings["network"]),
        "cells": [line.cells() for line in lines(rows)],
        "sizes": sizes(rows),
        "failures": failures(rows),
        "autonas": autonas_note(settings, rows),
    }


def _network(network: Row) -> str:
    depth, size = network.get("depth"), "16x16 (halved)" if network.get("halve") else "32x32"
    if depth is None:
        layers = 1 + network["mixes"]
        return (
            f"The plain CNN of [search-how.md](search-how.md)'s small spaces with {layers} "
            f"searched layers in place of 3 or 4, pictures of {size}"
        )
    return f"ResNet-{depth}, pictures of {size}"


def autonas_note(settings: Row, rows: Sequence[Row]) -> str:
    """Return a sentence on AutoNAS's settings and its number of subnets."""
    given = settings["autonas"]
    epochs = given["epochs_factor"] * settings["train"]["epochs"]
    with_what = f"with {_told(given['settings'])}" if given["settings"] else "with its defaults"
    scored = [
        str(row["search"]["subnets_scored"])
        for row in sorted(rows, key=lambda row: row["seed"])
        if (row["run"], row["method"]) == ("search", "AutoNAS") and "plan" in row
    ]
    note = f"AutoNAS trained its supernet for {epochs} epochs and searched it {with_what}."
    if scored:
        note += (
            " Drawn subnets within 2 % of the budget, which could be chosen, by seed: "
            f"{', '.join(scored)}."
        )
    return note


def _told(settings: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
