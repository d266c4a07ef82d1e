"""How commands begin and end, the bar of a list of jobs, and tables."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from effconv_core.cli.errors import run_command
from effconv_core.io.console import PlainConsole
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table


def run_and_report(name: str, run: Callable[[list[str], Console], Path]) -> int:
    """Run a command line that leaves a run's folder, and return its exit status.

    Args:
        name: prefix of an error message.
        run: takes the arguments and the console, and returns the folder.
    """

    def function() -> None:
        console, started = PlainConsole(), time.perf_counter()
        folder = run(sys.argv[1:], console)
        seconds = time.perf_counter() - started
        console.print(f"{folder / 'report.html'} written after {seconds:.0f} s", soft_wrap=True)

    return run_command(name, function)


def plain_bar(console: Console) -> Progress:
    """Build the bar of a list of independent jobs."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def show(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
) -> None:
    """Print a table; its twin for pages is `tools.support.markdown.table`.

    The first column is left-justified, and a line stands between rows whose first cells differ if
    any of them is repeated.

    Args:
        console: where it is printed.
        title: above it.
        columns: its headings.
        rows: their cells, as `str` gives them.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    firsts = [row[0] for row in cells]
    grouped = len(set(firsts)) < len(firsts)
    made = Table(title=title)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    for row, following in zip(cells, [*firsts[1:], None], strict=True):
        made.add_row(*row, end_section=grouped and row[0] != following)
    console.print(made)
