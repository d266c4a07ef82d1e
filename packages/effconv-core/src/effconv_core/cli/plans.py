"""The commands `effconv plan` and `effconv report`: tables, figures, CNNs of plans, reports."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.table import Table

from effconv_core import evidence
from effconv_core.cli.errors import check_device, check_output, run_command
from effconv_core.cli.specifiers.counter import counter_of
from effconv_core.cli.specifiers.model import check_by_name, make_model
from effconv_core.config import recipe
from effconv_core.cost.budget import Budget
from effconv_core.engine.frontier import Frontier
from effconv_core.filling import filling_sentence
from effconv_core.io.console import PlainConsole, parsed
from effconv_core.io.terminal import write_output
from effconv_core.method.searchable import SearchableCNN
from effconv_core.plan import SizePlan, apply_plan, in_words, save
from effconv_core.scalars import in_figures

UNITS = {
    "parameters": "parameters",
    "parameters of searched kernels": "searched",
    "multiply-accumulates": "macs",
    "nanoseconds": "latency",
}
"""What a frontier's costs count, and what `plan at` counts for it."""


@dataclass(frozen=True)
class Show:
    """Print a plan, or draw it."""

    plan: tyro.conf.Positional[Path]
    """JSON file of a plan."""
    out: Path | None = None
    """Figure of the sizes along the network: a .png or .svg file."""
    json: bool = False
    """Print the plan as JSON instead."""
    overwrite: bool = False
    """Replace the figure where it exists."""


@dataclass(frozen=True)
class Diff:
    """Print plans side by side, or draw them."""

    plans: tyro.conf.Positional[tuple[Path, ...]]
    """JSON files of two plans or more."""
    out: Path | None = None
    """Figure of all plans: a .png or .svg file."""
    json: bool = False
    """Print the sizes and what differs as JSON instead."""
    overwrite: bool = False
    """Replace the figure where it exists."""


@dataclass(frozen=True)
class Apply:
    """Build the plain CNN of a plan, with new random weights each time."""

    plan: tyro.conf.Positional[Path]
    """JSON file of a plan."""
    model: str
    """The network that was searched: torchvision:NAME, timm:NAME, effconv:NAME or
    package.module:function, a function that returns it, called without arguments."""
    out: Path
    """Safetensors file for weights and plan, as effconv_core.load reads it."""
    num_classes: int | None = None
    """Classes of a MODEL by name; by default its own number."""
    channels: int | None = None
    """Channels of the images, for a MODEL by name; by default its own."""
    overwrite: bool = False
    """Replace the file if it exists."""


@dataclass(frozen=True)
class At:
    """Take a plan of any cost from a frontier, without another search."""

    frontier: tyro.conf.Positional[Path]
    """JSON file that `effconv frontier` wrote."""
    model: str
    """The network that was searched, as for `effconv plan apply`."""
    budget: float
    """Largest cost of the plan, in what the frontier counts."""
    out: Path
    """JSON file of the plan."""
    num_classes: int | None = None
    """Classes of a MODEL by name; by default its own number."""
    shape: tuple[int, ...] = (3, 32, 32)
    """Shape of one input, as of the search's data."""
    latency_table: Path | None = None
    """JSON file of the times, for a frontier that counts latency."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where these were measured: `cpu`, `cuda` or `cuda:1`, for example."""
    overwrite: bool = False
    """Replace the file if it exists."""


@dataclass(frozen=True)
class Report:
    """Write the report of a run, or of several compared, as one HTML file."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, finished or not."""
    out: Path | None = None
    """HTML file; by default report.html in the run's folder, or in the closest common folder."""
    overwrite: bool = False
    """Replace the file if it exists."""


Command = (
    Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Diff, tyro.conf.subcommand("diff")]
    | Annotated[At, tyro.conf.subcommand("at")]
    | Annotated[Apply, tyro.conf.subcommand("apply")]
)


def plan_command(arguments: Sequence[str]) -> int:
    """Run `effconv plan`; return the exit status."""
    return _run("effconv plan", Command, arguments)


def report_command(arguments: Sequence[str]) -> int:
    """Run `effconv report`; return the exit status."""
    return _run("effconv report", Report, arguments)


def _run(prog: str, kind: Any, arguments: Sequence[str]) -> int:
    def function() -> None:
        command = parsed(kind, arguments, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))
        do = {Show: show, Diff: diff, At: at, Apply: apply, Report: report}[type(command)]
        do(command, PlainConsole())

    return run_command(prog, function)


def show(command: Show, console: PlainConsole) -> None:
    """Print a plan, or draw it."""
    plan = SizePlan.load(command.plan)
    if command.out is not None:
        _draw({command.plan.stem: plan}, command.out, command.overwrite)
    if command.json:
        write_output(plan.to_json())
        return
    table = Table(title=command.plan.name)
    for column in ("layer", "size", "soft size", "allowed", ""):
        table.add_column(column, justify="left" if column in ("layer", "") else "right")
    for name, size in plan.items():
        soft = in_words(plan.soft_sizes[name], ".2f") if plan.soft_sizes else ""
        bar = "█" * (max(size) if isinstance(size, tuple) else size)
        table.add_row(name, in_words(size), soft, _range(plan.allowed.get(name)), bar)
    console.print(table)
    for sentence in _sentences(plan):
        console.print(sentence, soft_wrap=True)
    if command.out is not None:
        console.print(f"drew {command.out}", soft_wrap=True)


def diff(command: Diff, console: PlainConsole) -> None:
    """Print plans side by side, or draw them."""
    if len(command.plans) < 2:
        raise ValueError(f"diff has {len(command.plans)} plan(s); pass the files of two or more")
    if len(set(command.plans)) < len(command.plans):
        raise ValueError("diff has the same file twice; pass different ones")
    stems = [path.stem for path in command.plans]
    titles = stems if len(set(stems)) == len(stems) else [str(path) for path in command.plans]
    loaded = [SizePlan.load(path) for path in command.plans]
    plans = dict(zip(titles, loaded, strict=True))
    if command.out is not None:
        _draw(plans, command.out, command.overwrite)
    layers = dict.fromkeys(name for plan in plans.values() for name in plan)
    sizes_of = {name: [plan.get(name) for plan in plans.values()] for name in layers}
    different = [name for name, sizes in sizes_of.items() if len(set(sizes)) > 1]
    if command.json:
        told = {
            "sizes": {title: plan.sizes for title, plan in plans.items()},
            "parameters": {title: plan.cost for title, plan in plans.items()},
            "different": different,
        }
        write_output(json.dumps(told) + "\n")
        return
    table = Table(title="kernel sizes")
    table.add_column("layer")
    for title in titles:
        table.add_column(title, justify="right")
    table.add_column("differs")
    for name, sizes in sizes_of.items():
        words = ["-" if size is None else in_words(size) for size in sizes]
        table.add_row(name, *words, "yes" if name in different else "")
    costs = ["" if plan.cost is None else f"{plan.cost:,}" for plan in plans.values()]
    table.add_section()
    table.add_row("parameters", *costs, "")
    console.print(table)
    console.print(f"{len(different)} of {len(layers)} layers differ")
    if command.out is not None:
        console.print(f"drew {command.out}", soft_wrap=True)


def at(command: At, console: PlainConsole) -> None:
    """Take a plan of any cost from a frontier."""
    found = Frontier.load(command.frontier)
    check_output(command.out, command.overwrite)
    check_by_name(command.model, num_classes=command.num_classes)
    if not command.shape or min(command.shape) < 1:
        raise ValueError(
            f"--shape is {command.shape}; pass channels and lengths of at least 1, such as 3 32 32"
        )
    counts = UNITS.get(found.counts)
    if counts is None:
        raise ValueError(
            f"{command.frontier} counts {found.counts}, which no command does; take its plan in "
            "Python, by Frontier.plan"
        )
    table = command.latency_table if counts == "latency" else None
    if counts == "latency" and (table is None or not table.is_file()):
        raise ValueError(
            f"{command.frontier} counts nanoseconds, and --latency-table is {table}; pass the file "
            "of times that `effconv frontier` wrote"
        )
    device = command.device if counts == "latency" else "cpu"
    check_device(device)
    ranges = {name: range(low, high + 1, step) for name, (low, high, step) in found.allowed.items()}
    searchable = SearchableCNN(
        make_model(command.model, num_classes=command.num_classes, channels=command.shape[0]),
        recipe("bank", count="searched" if counts == "searched" else "model"),
        searched=tuple(ranges),
        allowed=ranges,
    )
    counter = counter_of(counts, torch.zeros(1, *command.shape, device=device), table)
    plan = found.plan(searchable.to(device), Budget(command.budget, counter, at_most=True))
    plan.save(command.out)
    cost = plan.budgets[0]["cost"]
    console.print(f"{cost:,} {found.counts}; wrote {command.out}", soft_wrap=True)


def apply(command: Apply, console: PlainConsole) -> None:
    """Build the plain CNN of a plan, with new random weights each time."""
    plan = SizePlan.load(command.plan)
    check_output(command.out, command.overwrite)
    given = {"num_classes": command.num_classes, "channels": command.channels}
    check_by_name(command.model, **given)
    cnn = apply_plan(make_model(command.model, **given), plan)
    count = sum(parameter.numel() for parameter in cnn.parameters())
    searched = sum(cnn.get_submodule(name).weight.numel() for name in plan)
    if plan.cost not in (None, count, searched):  # a search may count its own layers alone
        raise ValueError(
            f"the plan is of a network of {plan.cost:,} parameters, and {command.model} with its "
            f"sizes has {count:,}: it is another network, or has other numbers of classes or "
            "channels; pass --num-classes, --channels, or the network that was searched"
        )
    save(cnn, plan, command.out)
    console.print(f"{command.model}: {count:,} parameters", soft_wrap=True)
    console.print(f"wrote {command.out}", soft_wrap=True)


def report(command: Report, console: PlainConsole) -> None:
    """Write the report of a run, or of several compared."""
    # Imported here, so that the other commands need no matplotlib.
    from effconv_core.report import is_report, write_report

    out = command.out
    if out is None:
        folders = [str(folder.resolve()) for folder in command.runs]
        out = Path(os.path.commonpath(folders)) / "report.html" if folders else Path("report.html")
        if command.overwrite and os.path.lexists(out) and not is_report(out):
            raise ValueError(f"{out} is not a report of effconv, so it stays; pass another --out")
    check_output(out, command.overwrite)
    write_report(command.runs, out)
    console.print(f"wrote {out}", soft_wrap=True)


def _draw(plans: Mapping[str, SizePlan], out: Path, overwrite: bool) -> None:
    check_output(out, overwrite)
    # Imported here, so that tables need no matplotlib.
    from effconv_core.figures import draw_sizes, save_figure

    save_figure(draw_sizes(plans), out)


def _range(allowed: tuple[int, int, int] | None) -> str:
    if allowed is None:
        return ""
    smallest, largest, step = allowed
    return f"{smallest} to {largest}" + (f" by {step}" if step > 1 else "")


def _sentences(plan: SizePlan) -> list[str]:
    sentences = [] if plan.evidence is None else evidence.sentences(plan.evidence)
    if plan.model is not None:
        versions = ", ".join(f"{name} {number}" for name, number in plan.versions.items())
        sentences.append(f"for a {plan.model}, by {versions}" if versions else f"for {plan.model}")
    if plan.cost is not None:
        sentences.append(f"cost: {plan.cost:,} parameters")
    for budget in plan.budgets:
        most = "at most " if budget["at_most"] else ""
        sentences.append(
            f"budget: {most}{in_figures(budget['amount'])} {budget['counts']}, of which the plan "
            f"takes {budget['cost']:,}"
        )
    if plan.adjusted and plan.evidence is None:
        changes = ", ".join(
            f"{name} {in_words(size)} → {in_words(plan[name])}"
            for name, size in plan.adjusted.items()
        )
        sentences.append(f"not the rounded soft sizes: {changes}")
    if filling := filling_sentence(plan):
        sentences.append(filling[0].lower() + filling[1:].rstrip("."))
    return sentences
