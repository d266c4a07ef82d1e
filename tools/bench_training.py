"""`hatch run bench:training`: what a training step costs in each way to run it.

The ways take their steps in turns on the same batches of real pictures, so that whatever else the
machine does falls on all of them; the batch's own time, with augmentation, is told apart.
"""

import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from effconv_core.run_files import environment, write_text
from effconv_data import load
from effconv_models import create_model
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tools.bench_search_step import spread
from tools.presets import data_note


@dataclass(frozen=True)
class Way:
    """How a network is run."""

    channels_last: bool = False
    bfloat16: bool = False
    compile: str = ""
    """Mode of `torch.compile`; empty runs eagerly. `reduce-overhead` is CUDA graphs on a GPU."""


WAYS = {
    "contiguous": Way(),
    "channels-last": Way(True),
    "channels-last, bfloat16": Way(True, True),
    "channels-last, compiled": Way(True, False, "default"),
    "channels-last, bfloat16, compiled": Way(True, True, "default"),
    "channels-last, bfloat16, CUDA graphs": Way(True, True, "reduce-overhead"),
}


@dataclass(frozen=True)
class Options:
    """Time training steps of a network on CIFAR-10 in each way to run it."""

    model: str = "cifar_resnet20"
    """A name of effconv_models."""
    size: int = 3
    """Kernel size of every layer inside blocks."""
    batch_size: int = 128
    warmups: int = 3
    """Rounds that are not counted; the first compiles."""
    rounds: int = 20
    """Counted steps of each way."""
    threads: int = torch.get_num_threads()
    """Threads of the CPU."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path | None = None
    """File for the result as JSON."""


class Trained:
    """A network and its optimizer, run in one way."""

    def __init__(self, way: Way, options: Options) -> None:
        generator = torch.Generator().manual_seed(0)
        model = create_model(options.model, kernel_sizes=options.size, generator=generator)
        model = model.to(options.device)
        self.way = way
        self.model = model.to(memory_format=torch.channels_last) if way.channels_last else model
        self.forward = torch.compile(model, mode=way.compile) if way.compile else self.model
        self.optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take one step of SGD."""
        if self.way.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, self.way.bfloat16):
            outputs = self.forward(images).float()
        loss = F.cross_entropy(outputs, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def measure(options: Options, data: str = "cifar10") -> dict[str, list[float]]:
    """Give the seconds of each counted step, by way, and those of the batches as `batch`."""
    torch.set_num_threads(options.threads)
    batches = load(data, batch_size=options.batch_size, device=options.device)
    trained = {name: Trained(way, options) for name, way in WAYS.items() if _known(way, options)}
    times: dict[str, list[float]] = {name: [] for name in ("batch", *trained)}

    def timed(name: str, started: float) -> None:
        if options.device.startswith("cuda"):
            torch.cuda.synchronize(options.device)
        times[name].append(time.perf_counter() - started)

    given = iter(batches)
    for number in range(options.warmups + options.rounds):
        started = time.perf_counter()
        images, labels = next(given)
        timed("batch", started)
        order = list(trained) if number % 2 else list(trained)[::-1]
        for name in order:
            started = time.perf_counter()
            trained[name].step(images, labels)
            timed(name, started)
    return {name: seconds[options.warmups :] for name, seconds in times.items()}


def _known(way: Way, options: Options) -> bool:
    return way.compile != "reduce-overhead" or options.device.startswith("cuda")


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(Options, prog="bench:training"), Console()
    times = measure(options)
    steps = 50_000 // options.batch_size
    table = Table(title=f"{options.model}, size {options.size}, batches of {options.batch_size}")
    for heading in ("way", "step, s", "20th to 80th percentile", "an epoch of 50,000, s"):
        table.add_column(heading)
    for name, seconds in times.items():
        told = spread(seconds)
        table.add_row(
            name,
            f"{told['median']:.4f}",
            f"{told['p20']:.4f} to {told['p80']:.4f}",
            f"{steps * told['median']:.1f}",
        )
    console.print(table)
    step = statistics.median(times["channels-last"])
    share = statistics.median(times["batch"]) / step
    console.print(f"A batch takes {share:.1%} of a channels-last step.")
    if options.out is not None:
        settings = {k: v for k, v in asdict(options).items() if k != "out"}
        content = {
            "settings": settings,
            "environment": {"data": data_note("cifar10"), **environment(options.device)},
            "seconds": {name: spread(seconds) for name, seconds in times.items()},
            "all_seconds": times,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.out, json.dumps(content, indent=1) + "\n")
        console.print(f"{options.out} written")


if __name__ == "__main__":
    main()
