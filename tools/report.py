"""The outcome of a run: a table for the terminal, a figure and a short report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effconv_core import SizePlan, figures, left_alone
from matplotlib.figure import Figure
from rich.table import Table
from torch import nn

from tools.run_folder import REPORT, Metrics, seconds_per_epoch, write_text


def layer_rows(model: nn.Module, plan: SizePlan) -> list[tuple[str, int, int, int, int]]:
    """Give (layer, input channels, output channels, size, parameters) along the network."""
    modules = dict(model.named_modules())
    rows = []
    for name, size in plan.items():
        conv = modules[name]
        c_in = conv.in_channels // conv.groups
        rows.append(
            (name, conv.in_channels, conv.out_channels, size, c_in * conv.out_channels * size**2)
        )
    return rows


def layer_table(model: nn.Module, plan: SizePlan) -> Table:
    """Make the terminal's table: layer, channels, size, parameters."""
    table = Table(title="learned kernel sizes")
    for column in ("layer", "channels", "soft size", "size", "parameters"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for name, c_in, c_out, size, parameters in layer_rows(model, plan):
        soft = f"{plan.soft_sizes[name]:.2f}"
        table.add_row(name, f"{c_in} → {c_out}", soft, str(size), f"{parameters:,}")
    return table


def draw_sizes(path: Path, plan: SizePlan, metrics: Metrics) -> None:
    """Draw the learned size of each layer, and the course of the soft sizes over the search."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    figures.draw_sizes({"size": plan}, left)
    courses = [row["soft_sizes"] for row in metrics.rows() if row["phase"] == "search"]
    figures.draw_course(courses, plan, right)
    figures.save_figure(figure, path)


def write_report(
    folder: Path,
    model: nn.Module,
    plan: SizePlan,
    networks: Mapping[str, Mapping[str, float]],
    metrics: Metrics,
) -> None:
    """Write `report.md`, the short report, from what the run has measured.

    Args:
        folder: the run's folder, with its `config.json`.
        model: the network that was searched.
        plan: what was found.
        networks: `parameters` and `test_accuracy` of the `learned` network, and where it was asked
            for of the `original` one.
        metrics: the run's metrics.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings = config["settings"]
    parts = [
        f"# {folder.name}",
        "",
        f"{settings['model']} on {settings['data']}, recipe `{settings['recipe']}`. "
        f"Data: {config['environment']['data']}.",
        "",
        "| network | parameters | test accuracy |",
        "|---|---|---|",
    ]
    parts += [
        f"| {sizes} sizes | {outcome['parameters']:,} | {outcome['test_accuracy']:.2%} |"
        for sizes, outcome in networks.items()
    ]
    off = plan.cost / plan.budget - 1
    parts += [
        "",
        f"Budget {plan.budget:,.0f} parameters, plan {plan.cost:,} ({off:+.2%}). "
        + adjustment_sentence(plan),
        "",
        left_alone_sentence(model),
        "",
        f"Search: {settings['search']['epochs']} epoch(s), "
        f"{seconds_per_epoch(metrics, 'search'):.1f} s each. "
        f"Training: {settings['train']['epochs']} epoch(s), "
        f"{seconds_per_epoch(metrics, 'train'):.1f} s each. "
        f"Mean over both: {seconds_per_epoch(metrics, 'search', 'train'):.1f} s.",
        "",
        "![sizes](sizes.png)",
        "",
        "| layer | channels | soft size | size | parameters |",
        "|---|---|---|---|---|",
    ]
    parts += [
        f"| {name} | {c_in} → {c_out} | {plan.soft_sizes[name]:.2f} | {size} | {parameters:,} |"
        for name, c_in, c_out, size, parameters in layer_rows(model, plan)
    ]
    write_text(folder / REPORT, "\n".join([*parts, *made_with(config)]))


def made_with(config: dict[str, Any]) -> list[str]:
    """Give the last lines of a report: device, versions and settings, from `config.json`."""
    lines = ["", "## Made with", "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in config["environment"].items()]
    settings = json.dumps(config["settings"], indent=2)
    return [*lines, "", "## Settings", "", "```json", settings, "```", ""]


def left_alone_sentence(model: nn.Module) -> str:
    """Say which convolutions were not searched, and why."""
    reasons = left_alone(model)
    if not reasons:
        return "Every convolution was searched."
    told = "; ".join(f"`{name}` {reason}" for name, reason in reasons.items())
    return f"Not searched: {told}."


def adjustment_sentence(plan: SizePlan) -> str:
    """Say whether the plan is the rounded soft sizes, and what was changed."""
    if not plan.adjusted:
        return "It is the rounded soft sizes."
    changes = ", ".join(
        f"{name} {rounded} → {plan[name]}" for name, rounded in plan.adjusted.items()
    )
    return (
        f"Not the rounded soft sizes: {changes}, because rounding left the budget's tolerance or "
        "the plan did better at the end of the search."
    )
