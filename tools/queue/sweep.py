"""`hatch run sweep:search`: searches of several seeds, budgets and recipes; `sweep:status`."""

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import tyro
from effconv_core.cli.errors import run_command
from effconv_core.io.atomic import write_text
from effconv_core.io.console import PlainConsole
from effconv_core.io.terminal import printable
from effconv_core.runs.names import folder_of, name_of
from effconv_core.runs.reader import read_result
from effconv_core.runs.writer import RESULT
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tools.queue.launchers import Launch, launch
from tools.queue.run_list import Run, end, failure, read_list, state
from tools.search import parse

LIST = "sweep.json"
RESULTS = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class Search(Launch):
    """Run the same search with several seeds, budgets and recipes, and train each found CNN.

    Finished runs are not repeated; interrupted ones are resumed; failed ones are retried. Options
    after `--` are passed to all searches.
    """

    data: tyro.conf.Positional[str]
    """As for `search`: cifar10, mnist, stl10, imagenet32 or demo."""
    folder: Path = Path("runs/sweep")
    """Folder of the runs, one each."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of data order, initial values and search."""
    budgets: tuple[float, ...] = ()
    """Target numbers of parameters; by default that of the search."""
    recipes: tuple[str, ...] = ()
    """Recipes of search and training; by default that of the search."""


@dataclass(frozen=True)
class Status:
    """Show the state of the runs of a list."""

    list: tyro.conf.Positional[Path]
    """The list's file, or the folder of a sweep."""


def runs_of(options: Search, further: list[str]) -> list[Run]:
    """Return a sweep's runs, ordered by seed.

    Raises:
        ValueError: for options that no search has.
    """
    budgets, recipes = options.budgets or (None,), options.recipes or (None,)
    runs = []
    for seed, budget, recipe in itertools.product(options.seeds, budgets, recipes):
        given = [options.data] + ([] if recipe is None else [f"--recipe={recipe}"])
        given += [f"--seed={seed}", f"--search.seed={seed}"]
        given += [] if budget is None else [f"--budget={budget}"]
        _, settings = parse([*given, *further])  # before anything is started
        words = options.data, settings.model, f"{settings.budget:.0f}"
        folder = folder_of(
            options.folder,
            settings.recipe,
            lambda word, words=words, seed=seed: name_of(*words, word, f"seed{seed}"),
        )
        runs.append(Run(folder.name, "tools.search:run_in", {"arguments": [*given, *further]}))
    return runs


def search_command(arguments: list[str], console: Console) -> int:
    """Run a sweep of searches."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = tyro.cli(Search, args=arguments[:cut], prog="sweep:search")
    runs, path = runs_of(options, arguments[cut + 1 :]), options.folder / LIST

    def collect(_: Run | None = None) -> None:
        rows = [
            {"run": run.name, **run.arguments, **read_result(options.folder / run.name)}
            for run in runs
            if end(options.folder / run.name) == "finished"
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(options.folder / RESULTS, text)

    status = launch(path, runs, options, console, on_end=collect, beside=(RESULTS,))
    collect()
    _summarise(options, runs, console)
    return status


def _summarise(options: Search, runs: list[Run], console: Console) -> None:
    """Print accuracies by budget and recipe."""
    groups: dict[str, list[float]] = {}
    for run in runs:
        if (options.folder / run.name / RESULT).exists():
            accuracy = read_result(options.folder / run.name)["accuracy"]
            groups.setdefault(run.name.rpartition("-")[0], []).append(accuracy)
    shown = Table("search", "seeds", "test accuracy", "±")
    for name, accuracies in groups.items():
        spread = f"{stdev(accuracies):.2%}" if len(accuracies) > 1 else ""
        shown.add_row(name, str(len(accuracies)), f"{mean(accuracies):.2%}", spread)
    console.print(shown)


def status_command(arguments: list[str], console: Console) -> int:
    """Print the state of the runs of a list."""
    options = tyro.cli(Status, args=arguments, prog="sweep:status")
    path = options.list / LIST if options.list.is_dir() else options.list
    shown = Table("run", "state", "")
    for run in read_list(path):
        how = state(path, run)
        why = failure(path, run) if how == "failed" else ""
        shown.add_row(escape(printable(run.name)), how, escape(printable(why)))
    console.print(shown)
    return 0


COMMANDS = {"search": search_command, "status": status_command}


def main() -> int:
    """Run the command line."""
    command, *rest = sys.argv[1:] or [""]
    if command not in COMMANDS:
        raise ValueError(f"command {command!r} is unknown; pass one of {', '.join(COMMANDS)}")
    return COMMANDS[command](rest, PlainConsole())


if __name__ == "__main__":
    sys.exit(run_command("sweep", main))
