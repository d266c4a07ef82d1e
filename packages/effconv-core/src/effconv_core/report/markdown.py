"""The result of a run: a table for the terminal, a figure and a Markdown report."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table
from torch import nn

from effconv_core import figures
from effconv_core.evidence import sentences
from effconv_core.filling import filling_sentence
from effconv_core.io.atomic import write_text
from effconv_core.io.schemas import ConfigFile
from effconv_core.layers.geometry import kernel_shape_of
from effconv_core.plan import Size, SizePlan, in_words
from effconv_core.runs.metrics import Metrics, seconds_per_epoch
from effconv_core.runs.reader import read_config
from effconv_core.runs.writer import REPORT
from effconv_core.scalars import in_figures
from effconv_core.space.selection import left_alone

PHASES = {"search": "Search", "train": "Training", "baseline": "Training with original sizes"}


def layer_rows(model: nn.Module, plan: SizePlan) -> list[tuple[str, int, int, Size, int]]:
    """Return (layer, input channels, output channels, size, parameters) along the network."""
    modules = dict(model.named_modules())
    rows = []
    for name, size in plan.items():
        conv = modules[name]
        kernels = conv.in_channels // conv.groups * conv.out_channels
        parameters = kernels * prod(kernel_shape_of(conv, size))
        rows.append((name, conv.in_channels, conv.out_channels, size, parameters))
    return rows


def layer_table(model: nn.Module, plan: SizePlan) -> Table:
    """Build the terminal's table: layer, channels, soft size, size, parameters."""
    table = Table(title="learned kernel sizes")
    for column in ("layer", "channels", "soft size", "size", "parameters"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for row in _cells(model, plan):
        table.add_row(*row)
    return table


def _cells(model: nn.Module, plan: SizePlan) -> list[tuple[str, ...]]:
    return [
        (name, f"{c_in} → {c_out}", _soft(plan.soft_sizes.get(name)), in_words(size), f"{n:,}")
        for name, c_in, c_out, size, n in layer_rows(model, plan)
    ]


def _soft(soft: float | tuple[float, ...] | None) -> str:
    return "" if soft is None else in_words(soft, ".2f")


def draw_sizes(path: Path, plan: SizePlan, metrics: Metrics) -> None:
    """Draw the learned size of each layer, and the soft sizes over the search."""
    courses = [
        row["soft_sizes"]
        for row in metrics.rows()
        if row["phase"] == "search"
        if "soft_sizes" in row
    ]
    # Without a row, as of an epoch of fewer steps than its loader said, there is no course.
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, *right = figure.subplots(1, 2 if courses else 1, squeeze=False)[0]
    figures.draw_sizes({"size": plan}, left)
    for axes in right:
        figures.draw_course(courses, plan, axes)
    figures.save_figure(figure, path)


def write_report(
    folder: Path,
    model: nn.Module,
    plan: SizePlan,
    networks: Mapping[str, Mapping[str, float]],
    metrics: Metrics,
) -> None:
    """Write the Markdown report, `report.md`, from the results of the run.

    Args:
        folder: the run's folder, with its `config.json`.
        model: the network that was searched, or the network of the plan.
        plan: the found or given plan.
        networks: `parameters` and `test_accuracy` (0 to 1) of the `learned` network, and if
            requested of the `original` one; empty if nothing was trained.
        metrics: the run's metrics.
    """
    config = read_config(folder)
    settings = config.settings
    recipe = f", recipe `{settings['recipe']}`" if "recipe" in settings else ""
    parts = [
        f"# {folder.name}",
        "",
        f"{settings['model']} on {settings['data']}{recipe}. "
        f"Data: {config.environment.get('data', 'not known')}.",
        "",
    ]
    if networks:
        parts += ["| network | parameters | test accuracy |", "|---|---|---|"]
        parts += [
            f"| {sizes} sizes | {outcome['parameters']:,} | {outcome['test_accuracy']:.2%} |"
            for sizes, outcome in networks.items()
        ]
        parts.append("")
    if plan.evidence is not None:
        verdict, *more = sentences(plan.evidence)
        parts += [f"**{verdict}** {' '.join(more)}", ""]
    if plan.budgets:
        parts += [f"{budget_sentence(plan)} {adjustment_sentence(plan)}".strip(), ""]
        parts += [sentence for sentence in [filling_sentence(plan)] if sentence] + [""]
    parts += [left_alone_sentence(model), "", _times(settings, metrics), ""]
    if (folder / "sizes.png").exists():
        parts += ["![sizes](sizes.png)", ""]
    parts += ["| layer | channels | soft size | size | parameters |", "|---|---|---|---|---|"]
    parts += [f"| {' | '.join(row)} |" for row in _cells(model, plan)]
    write_text(folder / REPORT, "\n".join([*parts, *made_with(config)]))


def budget_sentence(plan: SizePlan) -> str:
    """Return a sentence with the budgets and the plan's costs."""
    said = []
    for budget in plan.budgets:
        most = "at most " if budget["at_most"] else ""
        off = budget["cost"] / budget["amount"] - 1
        said.append(
            f"Budget {most}{in_figures(budget['amount'])} {budget['counts']}, plan "
            f"{budget['cost']:,} ({off:+.2%})."
        )
    return " ".join(said)


def _times(settings: Mapping[str, Any], metrics: Metrics) -> str:
    """Return a sentence with the time per epoch of each phase, in seconds."""
    said = []
    for phase, title in PHASES.items():
        seconds = seconds_per_epoch(metrics, phase)
        if seconds is not None:
            epochs = sum(row["phase"] == phase and "seconds" in row for row in metrics.rows())
            said.append(f"{title}: {epochs} epoch(s), {seconds:.1f} s each.")
    if len(said) > 1:
        both = seconds_per_epoch(metrics, "search", "train")
        said.append(f"Mean over search and training: {both:.1f} s.")
    return " ".join(said)


def made_with(config: ConfigFile) -> list[str]:
    """Return the last lines of a report: device, versions and settings, from `config.json`."""
    lines = ["", "## Made with", "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in config.environment.items()]
    settings = json.dumps(config.settings, indent=2)
    return [*lines, "", "## Settings", "", "```json", settings, "```", ""]


def left_alone_sentence(model: nn.Module) -> str:
    """Return a sentence with the skipped convolutions and the reasons."""
    reasons = left_alone(model)
    if not reasons:
        return "Every convolution was searched."
    told = "; ".join(f"`{name}` {reason}" for name, reason in reasons.items())
    return f"Not searched: {told}."


def adjustment_sentence(plan: SizePlan) -> str:
    """Return a sentence on whether the plan is the rounded soft sizes, and what was changed.

    Empty if plans were trained to choose among them: then the soft sizes are but one proposal.
    """
    if plan.evidence is not None:
        return ""
    if not plan.adjusted:
        return "It is the rounded soft sizes."
    changes = ", ".join(
        f"{name} {rounded} → {plan[name]}" for name, rounded in plan.adjusted.items()
    )
    return (
        f"Not the rounded soft sizes: {changes}, because rounding left the budget's tolerance or "
        "the plan did better at the end of the search."
    )
