"""`hatch run bench:versus`: EffConv, 3x3, random plans, TPE and AutoNAS at equal parameters.

One row per finished run is appended to `results/versus/SCALE.jsonl`; existing runs are not
repeated, so an interrupted command resumes where it stopped.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from effconv_core.io.atomic import write_text
from effconv_core.io.console import PlainConsole
from rich.console import Console

from tools.support.rows import changed_since, matches, read_rows, run_grid
from tools.versus.page import RESULTS, print_table
from tools.versus.runs import given_plans, search_by, train_found
from tools.versus.scales import SCALES

SEARCHES = ("EffConv", "TPE", "AutoNAS")


@dataclass(frozen=True)
class VersusOptions:
    """Search kernel sizes in several ways, train all found plans alike, and compare."""

    scale: Literal["smoke", "cpu", "gpu"] = "cpu"
    """smoke and cpu reduce network, images and epochs."""
    seeds: int | None = None
    """Number of searches of each method and trainings of each plan; None takes the scale's."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Device of searches and trainings."""
    workers: int = 1
    """Processes, of one thread each."""
    out: Path = RESULTS
    """Folder of the raw results."""
    report: bool = False
    """Print the table of existing results, and run nothing."""


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(VersusOptions, prog="bench:versus"), PlainConsole()
    path = options.out / f"{options.scale}.jsonl"
    if not options.report:
        open_results(path, options.scale)
        run_comparison(path, options, console)
    print_table(console, path)


def open_results(path: Path, scale: str) -> None:
    """Create the raw results with their settings, or drop rows to be retried.

    Raises:
        ValueError: if they have other settings.
    """
    settings = {"scale": scale, **asdict(SCALES[scale])}
    del settings["seeds"]  # more of them may be run later
    rows = read_rows(path)
    if not rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(settings) + "\n")
    elif changed := changed_since(rows[0], settings):
        raise ValueError(
            f"{path} was made with another {', '.join(changed)}; delete it or pass another --out"
        )
    else:
        kept = [row for row in rows if "failed" not in row]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def run_comparison(path: Path, options: VersusOptions, console: Console) -> None:
    """Run what the results lack: EffConv's searches, the others', then all trainings."""
    seeds = range(options.seeds or SCALES[options.scale].seeds)

    def search_with(methods: Sequence[str]) -> None:
        rows = read_rows(path)
        grid = [
            (
                path,
                {"run": "search", "method": method, "seed": seed},
                (*(options.scale, method, seed, options.device), allowed_steps(rows, method, seed)),
            )
            for method in methods
            for seed in seeds
        ]
        run_grid(console, " and ".join(methods), search_by, grid, options.workers)

    search_with(SEARCHES[:1])
    search_with(SEARCHES[1:])
    rows, grid = read_rows(path), []
    for seed in seeds:
        plans = given_plans(options.scale)
        for row in rows:
            if row.get("run") == "search" and row["seed"] == seed and "plan" in row:
                plans[row["method"]] = row["plan"]
        for method, plan in plans.items():
            key = {"run": "training", "method": method, "plan": plan, "seed": seed}
            grid.append((path, key, (options.scale, method, plan, seed, options.device)))
    run_grid(console, "trainings", train_found, grid, options.workers)


def allowed_steps(rows: Sequence[dict[str, Any]], method: str, seed: int) -> int | None:
    """Return for TPE the training steps that EffConv's search of the same seed cost."""
    if method != "TPE":
        return None
    key = {"run": "search", "method": "EffConv", "seed": seed}
    (row,) = (row for row in rows if matches(row, key))
    return int(row["steps"] + row["forwards"] / 3)


if __name__ == "__main__":
    main()
