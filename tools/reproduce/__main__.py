"""`hatch run reproduce:table1`, `reproduce:table2`: run what a table lacks, then write its rows."""

import json
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console

from tools.command import run_command
from tools.launch import Launch, launch
from tools.reproduce.rows import SCALES, Row, rows_of
from tools.reproduce.run import needed_by, run_name
from tools.run_folder import RESULT, read_result, write_text
from tools.run_list import Run


@dataclass(frozen=True, kw_only=True)
class Options(Launch):
    """Run the rows of a table: finished ones are kept, an interrupted one goes on."""

    table: tyro.conf.Positional[Literal["table1", "table2"]]
    scale: Literal["smoke", "cpu", "gpu", "paper"] = "cpu"
    """smoke and cpu reduce pictures and epochs, and say so in each row."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    runs: Path = Path("runs/reproduce")
    """Folder of the runs, one each."""
    out: Path = Path("results/reproduce")
    """Folder of the raw results."""
    dry_run: bool = False
    """Name the runs and stop."""


def runs_of(options: Options) -> list[Run]:
    """Give the runs of a table, in the order in which they are to be done."""
    rows = rows_of(options.table, options.scale)
    seeds = SCALES[options.scale][rows[0].data].seeds
    # What others need comes first, and the long searches of the paper's recipe last.
    last = ("reversed", "other seed", "paper")
    pairs = [(row, seed) for seed in range(seeds) for row in rows if _can_be_run(row, seed, seeds)]
    pairs.sort(key=lambda pair: pair[0].sizes in last and 1 + last.index(pair[0].sizes))
    given = {"scale": options.scale, "device": options.device}
    return [
        Run(
            run_name(row, seed),
            "tools.reproduce.run:run_row",
            {"row": asdict(row), "seed": seed, **given},
            tuple(needed_by(row, seed)),
        )
        for row, seed in pairs
    ]


def main() -> int:
    """Run the command line; the exit status is 1 if a run failed."""
    options, console = tyro.cli(Options, prog="reproduce"), Console()
    # Torch says so once for every even size: true, and no concern of who runs a table.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    runs, folder = runs_of(options), options.runs / options.scale
    if options.dry_run:
        for number, run in enumerate(runs, 1):
            console.print(f"{number}/{len(runs)} {run.name}")
        return 0

    def collect(ended: Run | None = None) -> None:
        """Write the results of all finished runs, in the order of the table."""
        finished = [run.name for run in runs if (folder / run.name / RESULT).exists()]
        if ended is not None and ended.name in finished:
            result = read_result(folder / ended.name)
            sizes = " ".join(map(str, result["sizes"].values()))
            console.print(f"    test accuracy {result['accuracy']:.2%}, sizes {sizes}")
        options.out.mkdir(parents=True, exist_ok=True)
        rows = "".join(json.dumps(read_result(folder / name)) + "\n" for name in finished)
        write_text(options.out / f"{options.table}-{options.scale}.jsonl", rows)

    status = launch(folder / f"{options.table}.json", runs, options, console, on_end=collect)
    collect()
    return status


def _can_be_run(row: Row, seed: int, seeds: int) -> bool:
    return row.sizes != "other seed" or seed + 1 < seeds


if __name__ == "__main__":
    sys.exit(run_command("reproduce", main))
