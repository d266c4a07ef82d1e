"""How commands begin and end, and the bar of a list of jobs."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from effconv_core.endings import run_command
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def run_and_report(name: str, run: Callable[[list[str], Console], Path]) -> int:
    """Run a command line that leaves a run's folder, and return its exit status.

    Args:
        name: stands before the sentence of a refusal.
        run: takes the arguments and the console, and returns the folder.
    """

    def function() -> None:
        console, started = Console(), time.perf_counter()
        folder = run(sys.argv[1:], console)
        seconds = time.perf_counter() - started
        console.print(f"{folder / 'report.md'} written after {seconds:.0f} s")

    return run_command(name, function)


def plain_bar(console: Console) -> Progress:
    """Make the bar of a list of independent jobs."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
