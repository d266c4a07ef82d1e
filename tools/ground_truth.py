"""`hatch run bench:ground-truth`: train every plan of the small spaces from scratch, alike.

One row a training is appended to `results/ground-truth/SPACE.jsonl`; rows that are there are not
trained again, so an interrupted command goes on where it stopped.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from effconv_core import apply_plan
from rich.console import Console

from tools.jobs import append_row, read_rows, run_jobs
from tools.presets import data_note
from tools.run_folder import environment
from tools.spaces import SAMPLES, SPACES
from tools.train import evaluate, train

TABLES = Path("results/ground-truth")


@dataclass(frozen=True)
class Options:
    """Train every plan near the budget of each small space from scratch."""

    spaces: tuple[str, ...] = tuple(SPACES)
    """Which spaces."""
    seeds: int = 3
    """Trainings of each plan."""
    workers: int = 2
    """Processes, of one thread each."""
    out: Path = TABLES
    """Folder of the tables."""


def train_plan(space: str, plan: dict[str, int], seed: int) -> dict:
    """Train one plan once; give its row."""
    torch.set_num_threads(1)
    started = time.process_time()
    settings = SPACES[space]
    network = settings.network(seed)
    cnn = apply_plan(network, plan, generator=torch.Generator().manual_seed(seed))
    cnn = cnn.to(memory_format=torch.channels_last)
    train(cnn, settings.batches("train", seed), settings.train)
    return {
        "plan": plan,
        "parameters": sum(parameter.numel() for parameter in cnn.parameters()),
        "seed": seed,
        "accuracy": evaluate(cnn, settings.batches("test", seed)),
        "cpu_seconds": round(time.process_time() - started, 2),
    }


def open_table(path: Path, space: str) -> list[dict]:
    """Make a table with its header, or give the rows that it holds.

    Raises:
        ValueError: if the table was made with other settings.
    """
    settings = {"samples": SAMPLES, "train": asdict(SPACES[space].train)}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        data = data_note("demo" if space.startswith("planted") else space.split("-")[0])
        header = {
            "space": space,
            "budget": SPACES[space].budget,
            "settings": settings,
            "environment": {"data": data, **environment("cpu"), "threads of a training": 1},
        }
        append_row(path, header)
        return []
    header, *rows = read_rows(path)
    if header["settings"] != settings:
        raise ValueError(
            f"{path} was made with {header['settings']}, not {settings}; delete it to train anew"
        )
    return rows


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="bench:ground-truth")
    jobs = []
    for space in options.spaces:
        path = options.out / f"{space}.jsonl"
        done = [(row["plan"], row["seed"]) for row in open_table(path, space)]
        jobs += [
            (path, (space, plan, seed))
            for seed in range(options.seeds)
            for plan in SPACES[space].plans()
            if (plan, seed) not in done
        ]
    run_jobs(Console(), "trainings", train_plan, jobs, options.workers)


if __name__ == "__main__":
    main()
