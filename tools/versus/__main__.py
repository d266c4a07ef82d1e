"""`hatch run bench:versus`: EffConv, 3x3, random plans, TPE and AutoNAS at equal parameters.

One row a finished run is appended to `results/versus/SCALE.jsonl`; runs that are there are not run
again, so an interrupted command goes on where it stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from effconv_core.io.atomic import write_text
from rich.console import Console

from tools.support.rows import append_row, read_rows, run_jobs
from tools.versus.page import RESULTS, print_table
from tools.versus.runs import given_plans, search_once, train_once
from tools.versus.scales import SCALES

SEARCHES = ("EffConv", "TPE", "AutoNAS")


@dataclass(frozen=True)
class Options:
    """Search kernel sizes in several ways, train all that is found alike, and compare."""

    scale: Literal["smoke", "cpu", "gpu"] = "cpu"
    """smoke and cpu reduce network, pictures and epochs."""
    seeds: int | None = None
    """Searches of each method and trainings of each plan; None takes the scale's number."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where searches and trainings run."""
    workers: int = 1
    """Processes, of one thread each."""
    out: Path = RESULTS
    """Folder of the raw results."""
    report: bool = False
    """Print the table of the results that there are, and run nothing."""


def changed_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the settings that are others than before; those that came later do not count."""

    def known(value: Any, old: Any) -> Any:
        both = isinstance(value, dict) and isinstance(old, dict)
        return {name: value.get(name) for name in old} if both else value

    return [key for key, value in now.items() if known(value, before.get(key)) != before.get(key)]


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(Options, prog="bench:versus"), Console()
    path = options.out / f"{options.scale}.jsonl"
    if not options.report:
        open_results(path, options.scale)
        run(path, options, console)
    print_table(console, path)


def open_results(path: Path, scale: str) -> None:
    """Begin the raw results with their settings, or drop from them what shall be tried again.

    Raises:
        ValueError: if they were made with other settings.
    """
    settings = {"scale": scale, **json.loads(json.dumps(asdict(SCALES[scale])))}
    del settings["seeds"]  # more of them may be run later
    rows = read_rows(path)
    if not rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of an interrupted first line
        append_row(path, settings)
    elif changed := changed_since(rows[0], settings):
        raise ValueError(
            f"{path} was made with another {', '.join(changed)}; delete it or pass another --out"
        )
    else:
        kept = [row for row in rows if "failed" not in row]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def run(path: Path, options: Options, console: Console) -> None:
    """Run what the results lack: EffConv's searches, the others', then all trainings."""
    seeds = range(options.seeds or SCALES[options.scale].seeds)

    def search_with(methods: Sequence[str]) -> None:
        rows = read_rows(path)
        jobs = []
        for method in methods:
            for seed in seeds:
                if not find(rows, run="search", method=method, seed=seed):
                    arguments = (options.scale, method, seed, options.device)
                    jobs.append((path, (*arguments, allowed_steps(rows, method, seed))))
        run_jobs(console, " and ".join(methods), search_once, jobs, options.workers)

    search_with(SEARCHES[:1])
    search_with(SEARCHES[1:])
    rows, jobs = read_rows(path), []
    for seed in seeds:
        plans = given_plans(options.scale)
        for method in SEARCHES:
            found = find(rows, run="search", method=method, seed=seed)
            if found and "plan" in found[0]:
                plans[method] = found[0]["plan"]
        for method, plan in plans.items():
            if not find(rows, run="training", method=method, plan=plan, seed=seed):
                jobs.append((path, (options.scale, method, plan, seed, options.device)))
    run_jobs(console, "trainings", train_once, jobs, options.workers)


def find(rows: Sequence[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """Give the rows whose entries are the wanted ones."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def allowed_steps(rows: Sequence[dict[str, Any]], method: str, seed: int) -> int | None:
    """Give TPE the training steps that EffConv's search of the same seed cost, rounded down."""
    if method != "TPE":
        return None
    (row,) = find(rows, run="search", method="EffConv", seed=seed)
    return int(row["steps"] + row["forwards"] / 3)


if __name__ == "__main__":
    main()
