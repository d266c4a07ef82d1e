"""`python -m tools.worker LIST`: work through a list of runs, beside any other workers."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from tools.command import run_command
from tools.run_list import work


@dataclass(frozen=True)
class Options:
    """Do runs of a list until all have ended, here or elsewhere."""

    list: tyro.conf.Positional[Path]
    """The list."""


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="worker")
    # Torch says so once for every even size: true, and no concern of who runs a list.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    work(options.list, Console())


if __name__ == "__main__":
    sys.exit(run_command("worker", main))
