"""The commands `effconv models` and `effconv list`: networks by name, and runs of a folder."""

import fnmatch
import importlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from effconv_core.cli.errors import run_command
from effconv_core.cli.plugins import brought
from effconv_core.io.console import PlainConsole, parsed
from effconv_core.io.terminal import printable, write_output
from effconv_core.runs.options import option
from effconv_core.runs.owner import MARKER, Owner, owner_of
from effconv_core.runs.reader import read_config, read_result

TRACES = (MARKER, "metrics.jsonl")
"""Files that make a folder a run's for `effconv list`, whatever its settings look like."""


@dataclass(frozen=True)
class Models:
    """Print the networks that MODEL can name, one a line."""

    pattern: tyro.conf.Positional[option(str, metavar="PATTERN")] = ""
    """Part of a name, such as 'resnet'; or, with * or ?, a shell pattern of the whole name or of
    what follows its colon, such as 'timm:*next*'."""


@dataclass(frozen=True)
class List:
    """Print the runs of a folder: what each is of, how far it is, and its accuracy."""

    runs: tyro.conf.Positional[option(Path, metavar="FOLDER")] = Path("runs")
    """The folder of all runs."""
    json: bool = False
    """Print one JSON list, nothing else."""


def models_command(arguments: Sequence[str]) -> int:
    """Run `effconv models`; return the exit status."""
    name = "effconv models"
    return run_command(name, lambda: _models(parsed(Models, arguments, prog=name)))


def list_command(arguments: Sequence[str]) -> int:
    """Run `effconv list`; return the exit status."""
    name, config = "effconv list", (tyro.conf.FlagCreatePairsOff,)
    return run_command(name, lambda: _list(parsed(List, arguments, prog=name, config=config)))


def _models(options: Models) -> None:
    pattern = options.pattern
    if not set(pattern) & set("*?["):
        pattern = f"*{pattern}*"
    names = [
        name
        for name in model_names()
        if any(fnmatch.fnmatchcase(n, pattern) for n in (name, name.partition(":")[2]))
    ]
    if not names:
        raise ValueError(
            f"no network has a name like {options.pattern!r}; effconv models prints all"
        )
    write_output("".join(f"{printable(name)}\n" for name in names))


def model_names() -> Iterable[str]:
    """Return the names of the networks of all packages that are installed.

    Of a package that brings models by an entry point it takes `list_models`, where there is one;
    those of torchvision are the classifiers of images.
    """
    packages = {
        word: entry.module.partition(".")[0] for word, entry in brought("effconv.models").items()
    }
    for word, package in (packages | {"torchvision": "torchvision.models", "timm": "timm"}).items():
        try:
            module = importlib.import_module(package)
        except (ImportError, RuntimeError):  # torchvision raises both where torch is another
            continue
        only = {"module": module} if word == "torchvision" else {}
        for name in getattr(module, "list_models", list)(**only):
            yield f"{word}:{name}"


def _list(options: List) -> None:
    if not options.runs.is_dir():
        raise FileNotFoundError(f"{options.runs} is not a folder; pass the folder of all runs")
    rows = [described(folder) for folder in sorted(options.runs.iterdir()) if is_run(folder)]
    if options.json:
        write_output(json.dumps(rows) + "\n")
        return
    if not rows:
        raise ValueError(f"{options.runs} holds no run; pass the folder of all runs")
    table = Table()
    for column in ("run", "model", "data"):
        table.add_column(column, overflow="fold")
    for column in ("parameters", "accuracy"):
        table.add_column(column, justify="right")
    table.add_column("state")
    for row in rows:
        count, accuracy = row["parameters"], row["accuracy"]
        table.add_row(
            row["run"],
            row["model"] or "",
            row["data"] or "",
            "" if count is None else f"{count:,}",
            "" if accuracy is None else f"{accuracy:.2%}",
            row["state"],
        )
    PlainConsole().print(table)


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run's, also one whose settings are damaged."""
    try:
        if not folder.is_dir():
            return False
        return owner_of(folder) is Owner.RUN or any((folder / n).is_file() for n in TRACES)
    except ValueError:  # a later release's
        return True
    except OSError:  # not ours to look into
        return False


def described(folder: Path) -> dict[str, Any]:
    """Return a run in brief: what is not known is None, and `state` says how far it is."""
    row = {"run": folder.name, "model": None, "data": None, "parameters": None, "accuracy": None}
    try:
        settings = read_config(folder).settings
        row |= {name: str(settings[name]) for name in ("model", "data") if name in settings}
        result = read_result(folder)
    except FileNotFoundError as error:
        begun = Path(str(error.filename)).name == "result.json"
        return {**row, "state": "not finished" if begun else "hardly begun"}
    except (OSError, ValueError) as error:
        return {**row, "state": f"cannot be read: {error}"}
    networks = result.get("networks", {})
    main = networks.get("learned", networks.get("original", {}))
    count = main.get("parameters", result.get("parameters"))
    accuracy = main.get("test_accuracy", result.get("accuracy"))
    return {**row, "parameters": count, "accuracy": accuracy, "state": "finished"}
