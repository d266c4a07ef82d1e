"""Comparison of several runs: sizes, accuracy, cost, time and differing settings."""

from collections.abc import Mapping
from statistics import fmean, stdev
from typing import Any

from effconv_core.evidence import interval
from effconv_core.report.charts import dot_chart, line_chart, percent
from effconv_core.report.view import as_tuple, budget_rows, flat, network_rows
from effconv_core.runs.reader import Run

SEEDS = ("seed", "search.seed")
"""Settings in which runs that are seeds of one another differ."""


def compare(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Return the template's values for the comparison of two or more runs.

    Args:
        runs: title to run.
    """
    layers = side_by_side(runs)
    return {
        "titles": list(runs),
        "rows": [outcome(title, run) for title, run in runs.items()],
        "warnings": warnings(runs),
        "seeds": over_seeds(runs),
        "layers": layers,
        "different": sum(row["differs"] for row in layers),
        "track": max((n for row in layers for cell in row["cells"] for n in cell), default=1),
        "charts": charts(runs),
        # The sizes of a training's plan have their own table.
        "settings": [
            (name, words)
            for name, words in differing({t: flat(run.settings) for t, run in runs.items()})
            if not name.startswith("plan.")
        ],
        "environment": differing({t: flat(run.environment) for t, run in runs.items()}),
    }


def outcome(title: str, run: Run) -> dict[str, Any]:
    """Return the row of one run: budgets, cost, accuracies, times in seconds; None if unknown."""
    learned, original = network_rows(run)
    gain = None
    if trained_phase(run) == "baseline":
        learned = original
    elif learned["accuracy"] is not None and original["accuracy"] is not None:
        gain = learned["accuracy"] - original["accuracy"]
    seconds, comparison = run.search_seconds()
    return {
        "title": title,
        "budgets": budget_rows(run),
        "learned": learned,
        "original": original,
        "gain": gain,
        "search_epochs": len(seconds),
        "search_seconds": sum(seconds) + comparison,
    }


def over_seeds(runs: Mapping[str, Run]) -> dict[str, Any] | None:
    """Return mean, standard deviation and interval of runs that are seeds of one another.

    Those are runs of the same settings but the seed, each with a test accuracy; None if these are
    not. The interval of the mean is Student's, of 95 %; it holds if accuracies are normal.
    """
    settings = [
        {k: v for k, v in flat(run.settings).items() if k not in SEEDS} for run in runs.values()
    ]
    seeds = [flat(run.settings).get("seed") for run in runs.values()]
    values = [outcome(title, run)["learned"]["accuracy"] for title, run in runs.items()]
    same = all(entries == settings[0] for entries in settings)
    if not same or None in values or len(set(seeds)) < len(seeds) or None in seeds:
        return None
    low, high = interval(values, 0.95)
    return {
        "mean": fmean(values),
        "deviation": stdev(values),
        "half": (high - low) / 2,
        "count": len(values),
    }


def trained_phase(run: Run) -> str:
    """Return the phase of the run's main CNN: `baseline` if nothing else was trained."""
    phases = {row["phase"] for row in run.rows}
    return "baseline" if "baseline" in phases and "train" not in phases else "train"


def warnings(runs: Mapping[str, Run]) -> list[str]:
    """Return a sentence for each difference that makes the runs' figures incomparable."""
    sentences = []
    for place, of, so in (
        ("data", "environment", "their accuracies do not compare"),
        ("model", "settings", "their sizes and accuracies belong to different networks"),
        ("budget", "settings", "a larger network may be better only for its size"),
        ("device", "environment", "their times do not compare"),
    ):
        known = [getattr(run, of) for run in runs.values()]
        if place == "budget":  # a training without a search has none
            known = [entries for entries in known if place in entries]
        values = {str(entries.get(place, "not known")) for entries in known}
        if len(values) > 1:
            sentences.append(f"The runs have another {place} ({'; '.join(sorted(values))}): {so}.")
    trainings = [
        {k: v for k, v in flat(run.settings).items() if k.startswith("train.")}
        for run in runs.values()
    ]
    if any(training != trainings[0] for training in trainings):
        sentences.append("The found CNNs were trained with other settings, see below.")
    return sentences


def side_by_side(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Return a row for each layer with its size in each run; empty if a plan lacks the layer."""
    plans = [run.plan or {} for run in runs.values()]
    names = dict.fromkeys(name for plan in plans for name in plan)
    rows = []
    for name in names:
        cells = [as_tuple(plan[name]) if name in plan else () for plan in plans]
        known = {cell for cell, plan in zip(cells, plans, strict=True) if plan}
        rows.append({"name": name, "cells": cells, "differs": len(known) > 1})
    return rows


def charts(runs: Mapping[str, Run]) -> list[Any]:
    """Draw accuracy against cost, and the training curves of the found CNNs."""
    dots, bars = {}, {}
    for title, run in runs.items():
        for row in network_rows(run):
            if row["accuracy"] is not None and row["parameters"] is not None:
                name = f"{title}, {row['title']}"
                dots[name] = (row["parameters"], 100 * row["accuracy"])
                if row["interval"] is not None:
                    low, high = row["interval"]
                    bars[name] = 100 * low, 100 * high
    curves = {
        what: {title: run.course(trained_phase(run), what) for title, run in runs.items()}
        for what in ("accuracy", "loss")
    }
    drawn = [
        dot_chart("Test accuracy against parameters", dots, form=percent, bars=bars),
        line_chart(
            "Accuracy in the training of each CNN",
            {t: [(x, 100 * y) for x, y in course] for t, course in curves["accuracy"].items()},
            form=percent,
        ),
        line_chart(
            "Loss in the training of each CNN",
            curves["loss"],
            form=lambda y: f"{y:.3g}",
        ),
    ]
    return [chart for chart in drawn if chart is not None]


def differing(tables: Mapping[str, Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """Return the entries that differ between tables, each with its value in all of them."""
    names = dict.fromkeys(name for table in tables.values() for name in table)
    rows = [(name, [table.get(name, "-") for table in tables.values()]) for name in names]
    return [(name, words) for name, words in rows if len(set(words)) > 1]
