"""`python -m tools.worker LIST`: work through a list of runs, beside any other workers."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from effconv_core.endings import run_command
from effconv_core.io.console import PlainConsole

from tools.run_list import work


@dataclass(frozen=True)
class Options:
    """Do runs of a list until all have ended, here or elsewhere."""

    list: tyro.conf.Positional[Path]
    """The list."""


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="worker")
    work(options.list, PlainConsole())


if __name__ == "__main__":
    sys.exit(run_command("worker", main))
