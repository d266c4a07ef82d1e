"""`hatch run bench:methods`: uniform, EffConv, FlexNet and multi-resolution beside each other."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from effconv_core.io.atomic import write_text
from effconv_core.run_files import environment
from rich.console import Console

from tools.methods.accuracy import Training, train_once
from tools.methods.cost import time_methods
from tools.methods.networks import METHODS
from tools.methods.page import COST, PAGE, accuracy_file, methods_page
from tools.support.rows import read_rows, run_jobs


@dataclass(frozen=True)
class Options:
    """Train the methods alike, time their steps in turns, or write the page."""

    what: tyro.conf.Positional[Literal["accuracy", "cost", "page"]]
    size: Literal["small", "paper"] = "small"
    """Of the trained networks; the cost is always that of the papers' size."""
    seeds: int = 2
    epochs: int = 6
    pictures: int | None = 4_000
    """Training pictures; None takes all."""
    data: Literal["cifar10", "stl10", "drawn"] = "cifar10"
    """For the accuracy; `drawn` has 96x96 pixels, as STL-10 has."""
    rounds: int = 5
    """Counted steps of each kind."""
    batch_sizes: tuple[int, int] = (32, 8)
    """Pictures of a timed step, at 32x32 and at 96x96."""
    threads: int = torch.get_num_threads()
    """Threads of the CPU, for the cost; trainings take one."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path = Path("results/methods")
    """Folder of the raw results; a training that stands there is not made again."""


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(Options, prog="bench:methods"), Console()
    kind = options.device.split(":")[0]
    if options.what == "accuracy":
        path = options.out / accuracy_file(options.data, options.size, kind)
        keys = "method", "seed", "pictures"
        done = {(*(row[key] for key in keys), row["train"]["epochs"]) for row in read_rows(path)}
        given = options.epochs, options.pictures
        jobs = [
            (path, (Training(method, options.size, seed, *given, options.data), options.device))
            for seed in range(options.seeds)
            for method in METHODS
            if (method, seed, options.pictures, options.epochs) not in done
        ]
        run_jobs(console, "trainings", train_once, jobs, 1)
    elif options.what == "cost":
        rows = []
        for image_size, batch_size in zip((32, 96), options.batch_sizes, strict=True):
            arguments = "paper", image_size, batch_size, options.rounds
            rows += time_methods(*arguments, options.device, options.threads)
        content = {
            "rounds": options.rounds,
            "environment": environment(options.device),
            "rows": rows,
        }
        path = options.out / COST.format(kind=kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(content, indent=1) + "\n")
    write_text(PAGE, methods_page())
    console.print(f"{PAGE} written")


if __name__ == "__main__":
    main()
