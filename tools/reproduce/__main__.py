"""`hatch run reproduce:table1`, `reproduce:table2`: run what a table lacks, then write its rows."""

import json
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console

from tools.reproduce.rows import SCALES, Row, rows_of
from tools.reproduce.run import RESULT, run_name, run_once
from tools.run_folder import write_text


@dataclass(frozen=True)
class Options:
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


def main() -> int:
    """Run the command line; the exit status is 1 if a run failed."""
    options, console = tyro.cli(Options, prog="reproduce"), Console()
    # Torch says so once for every even size: true, and no concern of who runs a table.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    rows = rows_of(options.table, options.scale)
    seeds = SCALES[options.scale][rows[0].data].seeds
    runs = [(row, seed) for seed in range(seeds) for row in rows if _can_be_run(row, seed, seeds)]
    # What others need comes first, and the long searches of the paper's recipe last.
    last = ("reversed", "other seed", "paper")
    runs.sort(key=lambda run: run[0].sizes in last and 1 + last.index(run[0].sizes))
    folder, failed = options.runs / options.scale, []

    def plan_of(row: Row, seed: int) -> dict[str, int]:
        found = run_name(Row(**{**row.__dict__, "sizes": "found"}), seed)
        return json.loads((folder / found / RESULT).read_text())["sizes"]

    for number, (row, seed) in enumerate(runs, 1):
        name = run_name(row, seed)
        console.print(f"{number}/{len(runs)} {name}")
        if options.dry_run:
            continue
        try:
            result = run_once(
                row,
                seed,
                options.scale,
                folder / name,
                device=options.device,
                plan_of=plan_of,
                console=console,
            )
        except Exception:  # the others are worth having all the same
            console.print(f"{name} failed:", style="red")
            console.print(traceback.format_exc(), markup=False)
            failed.append(name)
            continue
        sizes = " ".join(map(str, result["sizes"].values()))
        console.print(f"    test accuracy {result['accuracy']:.2%}, sizes {sizes}")
        _collect(folder, options.out / f"{options.table}-{options.scale}.jsonl", runs)
    if failed:
        console.print(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")
    return 1 if failed else 0


def _can_be_run(row: Row, seed: int, seeds: int) -> bool:
    return row.sizes != "other seed" or seed + 1 < seeds


def _collect(folder: Path, out: Path, runs: list[tuple[Row, int]]) -> None:
    """Write the results of all finished runs, in the order of the table."""
    results = [folder / run_name(row, seed) / RESULT for row, seed in runs]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(result.read_text() for result in results if result.exists()))


if __name__ == "__main__":
    raise SystemExit(main())
