"""`hatch run bench:ground-truth`: tabular benchmark: train all plans of the small spaces.

One row per training is appended to `results/ground-truth/TABLE.jsonl`; existing rows are not
repeated, so an interrupted command resumes where it stopped.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from effconv_core import apply_plan
from effconv_core.engine.train import evaluate, train
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment

from tools.presets import data_note
from tools.studies.small_spaces import TABLES
from tools.support.rows import append_row, changed_since, read_rows, run_grid

FOLDER = Path("results/ground-truth")


@dataclass(frozen=True)
class GroundTruthOptions:
    """Train all plans near the budget of each small space from scratch."""

    tables: tuple[str, ...] = tuple(TABLES)
    """Tables to fill."""
    seeds: int = 3
    """Number of trainings of each plan."""
    workers: int = 2
    """Processes, of one thread each."""
    out: Path = FOLDER
    """Folder of the tables."""


def train_plan(table: str, plan: dict[str, int], seed: int) -> dict:
    """Train one plan once; return its row."""
    torch.set_num_threads(1)
    settings = TABLES[table]
    batches = settings.batches("train", seed)  # reading or drawing the data does not count
    started = time.process_time()
    network = settings.network(seed)
    cnn = apply_plan(network, plan, generator=torch.Generator().manual_seed(seed))
    cnn = cnn.to(memory_format=torch.channels_last)
    train(cnn, batches, settings.train)
    seconds = time.process_time() - started
    return {
        "plan": plan,
        "parameters": sum(parameter.numel() for parameter in cnn.parameters()),
        "seed": seed,
        "accuracy": evaluate(cnn, settings.batches("test", seed)),
        "cpu_seconds": round(seconds, 2),
    }


def open_table(path: Path, table: str) -> None:
    """Start a table with its header, or check that of one that there is.

    Raises:
        ValueError: if the table has other settings.
    """
    space = TABLES[table]
    settings = {"samples": space.samples, "train": asdict(space.train)}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        real = table.split("-")[0]
        data = data_note(real if real in ("cifar10", "mnist") else "demo")
        where = {"data": data, **environment("cpu"), "threads of a training": 1}
        append_row(path, {"table": table, "settings": settings, "environment": where})
    elif changed := changed_since(read_rows(path)[0]["settings"], settings):
        raise ValueError(
            f"{path} was made with another {', '.join(changed)}; delete it to train again"
        )


def main() -> None:
    """Run the command line."""
    options = tyro.cli(GroundTruthOptions, prog="bench:ground-truth")
    grid = []
    for table in options.tables:
        path = options.out / f"{table}.jsonl"
        open_table(path, table)
        grid += [
            (path, {"plan": plan, "seed": seed}, (table, plan, seed))
            for seed in range(options.seeds)
            for plan in TABLES[table].table_plans()
        ]
    run_grid(PlainConsole(), "trainings", train_plan, grid, options.workers)


if __name__ == "__main__":
    main()
