"""`hatch run reproduce:multi-table1` and so on: the multi-resolution paper's tables."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from effconv_core.cli.errors import check_device, run_command
from effconv_core.io.atomic import write_bytes, write_text
from effconv_core.io.console import PlainConsole
from effconv_core.runs.writer import RESULT

from tools.presets import check_set
from tools.reproduce.mixtures import RESULTS, needed, options_of
from tools.reproduce.multi_resolution_page import PAGE, multi_resolution_page
from tools.train.multi_resolution import run

KEPT = ("config.json", "metrics.jsonl", "mixing.json")
"""What the page reads of a run; the last is copied last."""


@dataclass(frozen=True, kw_only=True)
class MixturesOptions:
    """Run the networks of a table; finished runs are kept, an interrupted one goes on.

    A network whose result stands in `out` at this scale is not run again; delete its folder there
    to have it run.
    """

    name: tyro.conf.Positional[Literal["table1", "table2", "table3", "table4"]]
    scale: Literal["smoke", "cpu", "paper"] = "cpu"
    """smoke and cpu reduce pictures, epochs and, but for table 2, channels, which each row says."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    runs: Path = Path("runs/multi-resolution")
    """Folder of the runs."""
    out: Path = RESULTS
    """Folder of the raw results, a folder each; smoke is for tests and leaves none."""
    dry_run: bool = False
    """Print the names of the runs and stop."""


def main() -> int:
    """Run the command line."""
    options, console = tyro.cli(MixturesOptions, prog="reproduce:multi"), PlainConsole()
    mixtures = needed(options.name, options.scale)
    if options.dry_run:
        for number, mixture in enumerate(mixtures, 1):
            console.print(f"{number}/{len(mixtures)} {mixture.name}")
        return 0
    check_device(options.device)
    check_set("cifar10")
    for number, mixture in enumerate(mixtures, 1):
        place = options.out / f"{options.scale}-{mixture.name}"
        stands = options.scale != "smoke" and (place / KEPT[-1]).exists()
        kept = f": kept, its result stands in {place}" if stands else ""
        console.print(f"{number}/{len(mixtures)} {mixture.name}{kept}")
        if stands:
            continue
        given = options_of(mixture, options.scale, options.runs / options.scale, options.device)
        folder = given.runs / given.name
        if not (folder / RESULT).exists():
            run(given, console)
        if options.scale != "smoke":
            place.mkdir(parents=True, exist_ok=True)
            for name in KEPT:
                write_bytes(place / name, (folder / name).read_bytes())
    if options.scale != "smoke" and options.out == RESULTS:
        write_text(PAGE, multi_resolution_page())
        console.print(f"{PAGE} written")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("reproduce:multi", main))
