"""`hatch run reproduce:table1` and the like: run what a table or figure lacks, and write it."""

import json
import shutil
import traceback
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console

from tools.jobs import read_rows
from tools.reproduce.rows import Row, runs_of
from tools.reproduce.run import KERNELS, check_settings, run_name, run_once
from tools.run_folder import write_text


@dataclass(frozen=True)
class Options:
    """Run the rows of a table or figure: finished ones are kept, an interrupted one goes on."""

    name: tyro.conf.Positional[
        Literal["table1", "table2", "table3", "table4", "figure2", "figure3"]
    ]
    scale: Literal["smoke", "cpu", "gpu", "paper"] = "cpu"
    """smoke and cpu reduce pictures and epochs, and say so in each row."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    runs: Path = Path("runs/reproduce")
    """Folder of the runs, one each."""
    out: Path = Path("results/reproduce")
    """Folder of the raw results; a run whose result stands there is not run again."""
    dry_run: bool = False
    """Name the runs and stop."""


def main() -> int:
    """Run the command line; the exit status is 1 if a run failed."""
    options, console = tyro.cli(Options, prog="reproduce"), Console()
    # Torch says so once for every even size: true, and no concern of who runs a table.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    runs, failed = runs_of(options.name, options.scale), []
    data, folder = runs[0][0].data, options.runs / options.scale
    out = options.out / f"{data}-{options.scale}.jsonl"
    results = {run_name(Row(**row["row"]), row["seed"]): row for row in read_rows(out)}

    def plan_of(row: Row, seed: int) -> dict[str, int]:
        return results[run_name(replace(row, sizes="found"), seed)]["sizes"]

    for number, (row, seed) in enumerate(runs, 1):
        name = run_name(row, seed)
        console.print(f"{number}/{len(runs)} {name}")
        if options.dry_run:
            continue
        try:
            if name in results:
                check_settings(results[name], row, seed, options.scale, out)
            else:
                results[name] = run_once(
                    row,
                    seed,
                    options.scale,
                    folder / name,
                    device=options.device,
                    plan_of=plan_of,
                    console=console,
                )
                keep(name, folder, out, results)
        except Exception:  # the others are worth having all the same
            console.print(f"{name} failed:", style="red")
            console.print(traceback.format_exc(), markup=False)
            failed.append(name)
            continue
        result = results[name]
        sizes = " ".join(map(str, result["sizes"].values()))
        console.print(f"    test accuracy {result['accuracy']:.2%}, sizes {sizes}")
    if failed:
        console.print(f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}")
    return 1 if failed else 0


def keep(name: str, folder: Path, out: Path, results: dict[str, dict[str, Any]]) -> None:
    """Write all results, and the kernels of a run that has some, where the page reads them."""
    kernels = folder / name / KERNELS
    if kernels.exists():
        place = out.parent / "kernels" / out.stem / f"{name}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kernels, place)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, "".join(json.dumps(results[name]) + "\n" for name in sorted(results)))


if __name__ == "__main__":
    raise SystemExit(main())
