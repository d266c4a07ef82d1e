"""How a command of `tools` that leaves a run's folder begins and ends."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from effconv_core.endings import run_command
from effconv_core.io.console import PlainConsole
from rich.console import Console


def run_and_report(name: str, run: Callable[[list[str], Console], Path]) -> int:
    """Run a command line that leaves a run's folder, and give its exit status.

    Args:
        name: stands before the sentence of a refusal.
        run: takes the arguments and the console, and gives the folder.
    """

    def function() -> None:
        console, started = PlainConsole(), time.perf_counter()
        folder = run(sys.argv[1:], console)
        seconds = time.perf_counter() - started
        console.print(f"{folder / 'report.md'} written after {seconds:.0f} s")

    return run_command(name, function)
