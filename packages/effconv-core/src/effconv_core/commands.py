"""What the command `effconv` does: plans in the terminal, figures, CNNs, and reports of runs."""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from torch import nn

from effconv_core.plan import SizePlan, apply_plan, save

USAGE = """usage: effconv plan show|diff|apply ...
       effconv report DIR [DIR ...]

  plan show   Print a plan, or draw it.
  plan diff   Print plans side by side, or draw them.
  plan apply  Build the plain CNN of a plan, with weights drawn anew.
  report      Write the report of a run, or of several compared, as one HTML file.

effconv plan show --help tells more."""


@dataclass(frozen=True)
class Show:
    """Print a plan, or draw it."""

    plan: tyro.conf.Positional[Path]
    """JSON file of a plan."""
    out: Path | None = None
    """Figure of the sizes along the network: a .png or .svg file."""


@dataclass(frozen=True)
class Diff:
    """Print plans side by side, or draw them."""

    plans: tyro.conf.Positional[tuple[Path, ...]]
    """JSON files of two plans or more."""
    out: Path | None = None
    """Figure of all plans: a .png or .svg file."""


@dataclass(frozen=True)
class Apply:
    """Build the plain CNN of a plan, with weights drawn anew each time."""

    plan: tyro.conf.Positional[Path]
    """JSON file of a plan."""
    model: str
    """The network that was searched: torchvision:NAME, timm:NAME, effconv:NAME or
    package.module:function, a function that is called with nothing and gives it."""
    out: Path
    """Safetensors file for weights and plan, as effconv_core.load reads it."""
    overwrite: bool = False
    """Replace the file where it exists."""


@dataclass(frozen=True)
class Report:
    """Write the report of a run, or of several compared, as one HTML file that opens from disk."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, finished or not."""
    out: Path | None = None
    """HTML file; report.html in the run's folder, or in the closest that holds all, when None."""
    overwrite: bool = False
    """Replace the file where it exists."""


Command = (
    Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Diff, tyro.conf.subcommand("diff")]
    | Annotated[Apply, tyro.conf.subcommand("apply")]
)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and give the exit code; 2 is an error of the user's."""
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    if not arguments or arguments[0] in ("--help", "-h"):
        console.print(USAGE, markup=False, soft_wrap=True)
        return 0
    try:
        kinds = {"plan": Command, "report": Report}
        if arguments[0] not in kinds:
            raise ValueError(f"command {arguments[0]!r} is unknown; pass {' or '.join(kinds)}")
        prog = f"effconv {arguments[0]}"
        command = tyro.cli(kinds[arguments[0]], args=arguments[1:], prog=prog)
        {Show: show, Diff: diff, Apply: apply, Report: report}[type(command)](command, console)
    except (OSError, ValueError, TypeError, ModuleNotFoundError) as error:
        # Neither wrapped nor coloured, because names of files stand in it.
        errors.print(f"effconv: {error}", markup=False, soft_wrap=True)
        return 2
    return 0


def show(command: Show, console: Console) -> None:
    """Print a plan, or draw it."""
    plan = SizePlan.load(command.plan)
    if command.out is not None:
        _draw({command.plan.stem: plan}, command.out)
    table = Table(title=_escaped(command.plan.name))
    for column in ("layer", "size", "soft size", "allowed", ""):
        table.add_column(column, justify="left" if column in ("layer", "") else "right")
    for name, size in plan.items():
        soft = _words(plan.soft_sizes[name], ".2f") if plan.soft_sizes else ""
        bar = "█" * (max(size) if isinstance(size, tuple) else size)
        table.add_row(_escaped(name), _words(size), soft, _range(plan.allowed.get(name)), bar)
    console.print(table)
    for sentence in _sentences(plan):
        console.print(sentence, markup=False, soft_wrap=True)
    if command.out is not None:
        console.print(f"drew {command.out}", markup=False, soft_wrap=True)


def diff(command: Diff, console: Console) -> None:
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
        _draw(plans, command.out)
    table = Table(title="kernel sizes")
    table.add_column("layer")
    for title in titles:
        table.add_column(_escaped(title), justify="right")
    table.add_column("differs")
    layers = list(dict.fromkeys(name for plan in plans.values() for name in plan))
    different = 0
    for name in layers:
        sizes = [plan.get(name) for plan in plans.values()]
        differs = len(set(sizes)) > 1
        different += differs
        words = ["-" if size is None else _words(size) for size in sizes]
        table.add_row(_escaped(name), *words, "yes" if differs else "")
    costs = ["" if plan.cost is None else f"{plan.cost:,}" for plan in plans.values()]
    table.add_section()
    table.add_row("parameters", *costs, "")
    console.print(table)
    console.print(f"{different} of {len(layers)} layers differ")
    if command.out is not None:
        console.print(f"drew {command.out}", markup=False, soft_wrap=True)


def apply(command: Apply, console: Console) -> None:
    """Build the plain CNN of a plan, with weights drawn anew each time."""
    plan = SizePlan.load(command.plan)
    if command.out.exists() and not command.overwrite:
        raise ValueError(f"{command.out} exists; pass --overwrite to replace it or another --out")
    cnn = apply_plan(make_model(command.model), plan)
    save(cnn, plan, command.out)
    count = sum(parameter.numel() for parameter in cnn.parameters())
    console.print(f"{command.model}: {count:,} parameters", markup=False, soft_wrap=True)
    if plan.cost is not None and plan.cost != count:
        console.print(f"the plan says {plan.cost:,}: its network, or what it counts, is another")
    console.print(f"wrote {command.out}", markup=False, soft_wrap=True)


def report(command: Report, console: Console) -> None:
    """Write the report of a run, or of several compared."""
    # Here, so that the other commands need no matplotlib.
    from effconv_core.report import write_report

    out = command.out
    if out is None:
        folders = [str(folder.resolve()) for folder in command.runs]
        out = Path(os.path.commonpath(folders)) / "report.html" if folders else Path("report.html")
    if out.exists() and not command.overwrite:
        raise ValueError(f"{out} exists; pass --overwrite to replace it or another --out")
    write_report(command.runs, out)
    console.print(f"wrote {out}", markup=False, soft_wrap=True)


def make_model(name: str) -> nn.Module:
    """Make the network that a name stands for, see `Apply.model`.

    Raises:
        ValueError: if there is none, or it cannot be made.
    """
    source, colon, rest = name.partition(":")
    if not (source and colon and rest):
        raise ValueError(
            f"model {name!r} names no network; pass torchvision:NAME, timm:NAME, effconv:NAME or "
            "package.module:function"
        )
    try:
        if source == "torchvision":
            return importlib.import_module("torchvision.models").get_model(rest, weights=None)
        if source == "timm":
            return importlib.import_module("timm").create_model(rest, pretrained=False)
        if source == "effconv":
            return importlib.import_module("effconv_models").create_model(rest)
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))  # as python -m does
        model = getattr(importlib.import_module(source), rest)()
    except (ImportError, AttributeError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"model {name!r} cannot be made ({error}); check its name, and that its package is "
            "installed"
        ) from None
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model {name!r} gave a {type(model).__name__}; name one that gives a torch.nn.Module"
        )
    return model


def _draw(plans: Mapping[str, SizePlan], out: Path) -> None:
    # Here, so that tables need no matplotlib.
    from effconv_core.figures import draw_sizes, save_figure

    save_figure(draw_sizes(plans), out)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _words(size: Any, form: str = "d") -> str:
    return "x".join(format(n, form) for n in (size if isinstance(size, tuple) else (size,)))


def _range(allowed: tuple[int, int, int] | None) -> str:
    if allowed is None:
        return ""
    smallest, largest, step = allowed
    return f"{smallest} to {largest}" + (f" by {step}" if step > 1 else "")


def _sentences(plan: SizePlan) -> list[str]:
    sentences = []
    if plan.model is not None:
        versions = ", ".join(f"{name} {number}" for name, number in plan.versions.items())
        sentences.append(f"for a {plan.model}, by {versions}" if versions else f"for {plan.model}")
    if plan.cost is not None:
        sentences.append(f"cost: {plan.cost:,} parameters")
    for budget in plan.budgets:
        most = "at most " if budget["at_most"] else ""
        sentences.append(
            f"budget: {most}{budget['amount']:,.0f} {budget['counts']}, of which the plan takes "
            f"{budget['cost']:,}"
        )
    if plan.adjusted:
        changes = ", ".join(
            f"{name} {_words(size)} → {_words(plan[name])}" for name, size in plan.adjusted.items()
        )
        sentences.append(f"not the rounded soft sizes: {changes}")
    return sentences
