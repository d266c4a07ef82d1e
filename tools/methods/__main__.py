"""`hatch run bench:methods`: comparison of uniform, EffConv, FlexNet and multi-resolution."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from effconv_core.io.atomic import write_text
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment

from tools.bench.core import write
from tools.methods.accuracy import Training, train_method
from tools.methods.cost import time_methods
from tools.methods.networks import METHODS
from tools.methods.page import COST, PAGE, accuracy_file, methods_page
from tools.support.rows import run_grid


@dataclass(frozen=True)
class MethodsOptions:
    """Train the methods alike, time their steps alternately, or write the page."""

    what: tyro.conf.Positional[Literal["accuracy", "cost", "page"]]
    size: Literal["small", "paper"] = "small"
    """Size of the trained networks; the cost is always that of the papers' size."""
    seeds: int = 2
    epochs: int = 6
    pictures: int | None = 4_000
    """Training pictures; None takes all."""
    data: Literal["cifar10", "stl10", "drawn"] = "cifar10"
    """Data for the accuracy; `drawn` has 96x96 pixels, like STL-10."""
    rounds: int = 5
    """Timed steps of each kind."""
    batch_sizes: tuple[int, int] = (32, 8)
    """Images per timed step, at 32x32 and at 96x96."""
    threads: int = torch.get_num_threads()
    """Threads of the CPU, for the cost; trainings take one."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path = Path("results/methods")
    """Folder of the raw results; finished trainings are not repeated."""


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(MethodsOptions, prog="bench:methods"), PlainConsole()
    kind = options.device.split(":")[0]
    if options.what == "accuracy":
        path = options.out / accuracy_file(options.data, options.size, kind)
        given = options.epochs, options.pictures
        key = {"pictures": options.pictures, "train": {"epochs": options.epochs}}
        grid = [
            (
                path,
                {**key, "method": method, "seed": seed},
                (Training(method, options.size, seed, *given, options.data), options.device),
            )
            for seed in range(options.seeds)
            for method in METHODS
        ]
        run_grid(console, "trainings", train_method, grid, 1)
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
        write(content, options.out / COST.format(kind=kind), console)
    write_text(PAGE, methods_page())
    console.print(f"{PAGE} written")


if __name__ == "__main__":
    main()
