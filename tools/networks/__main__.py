"""`hatch run networks:run`: search networks of other packages for two steps each.

Rows that are there already are left as they are. A network that is neither searched nor refused as
expected makes the status 1.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from effconv_core.cli.errors import run_command
from effconv_core.io.console import PlainConsole, parsed

from tools.networks.outside import check_network, networks
from tools.support.rows import read_rows, run_grid

RESULTS = Path("results/networks.jsonl")


@dataclass(frozen=True)
class Options:
    """Search networks of other packages for two steps each."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Which networks; all by default."""
    output: Path = RESULTS
    """The file of rows."""
    workers: int = 1
    """Number of processes, of one thread each."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""

    def function() -> int:
        console = PlainConsole()
        options = parsed(Options, arguments, prog="networks")
        listed = [n for n in networks() if not options.names or n["name"] in options.names]
        grid = [
            (options.output, {"package": n["package"], "name": n["name"]}, (n,)) for n in listed
        ]
        run_grid(console, "networks", check_network, grid, options.workers)
        rows = {row["name"]: row for row in read_rows(options.output)}
        odd = [n["name"] for n in listed if rows[n["name"]]["outcome"] != n["expect"]]
        for name in odd:
            console.print(f"{name} is {rows[name]['outcome']}: {rows[name].get('sentence', '')}")
        return int(bool(odd))

    return run_command("networks", function) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
