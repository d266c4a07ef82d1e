"""`hatch run bench:stream`: a search over a stream of generated images, by two ranks.

The images are generated as they are read, by programs behind `pipe:` addresses; nothing is stored.
The memory of each rank and of its workers is sampled on the way, and each image is counted.
"""

import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import tyro
from effconv_core import recipe, search
from effconv_core.cli.errors import run_command
from effconv_core.distributed.process_group import Ranks, joined
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment
from effconv_data import Batches, StreamedBatches, normalize
from effconv_data.shards.index import Shard
from rich.console import Console
from torch import Tensor, nn

from tools.bench import generated_shard
from tools.bench.core import write

CLASSES = 10
BUDGET = 5_000


@dataclass(frozen=True)
class StreamOptions:
    """Search over a stream of generated images, and watch the memory."""

    samples: int = 1_280_000
    """Images of the set; also of an epoch, if batches divide them."""
    shard_samples: int = 2_500
    """Images per shard; each lane has one of its shards in memory, of 5 KiB an image."""
    batch_size: int = 256
    """Batch size, over all ranks."""
    every: int = 25
    """Batches between memory readings."""
    out: Path = Path("results/stream.json")
    """File for the result as JSON."""


def network() -> nn.Module:
    """Build a network that is cheap compared with reading, on images of a quarter of the size."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def stream(options: StreamOptions, ranks: Ranks) -> StreamedBatches:
    """Return this rank's part of the set, as 8-bit images."""
    shards = []
    for first in range(0, options.samples, options.shard_samples):
        count = min(options.shard_samples, options.samples - first)
        program = f"pipe:{sys.executable} {generated_shard.__file__} {first} {count} {CLASSES}"
        shards.append(Shard(program, count, None, allow_commands=True))
    return StreamedBatches(
        shards,
        classes=[str(label) for label in range(CLASSES)],
        image_shape=(3, generated_shard.SIZE, generated_shard.SIZE),
        batch_size=ranks.share(options.batch_size, "batch_size"),
        mean=(0.5,) * 3,
        std=(0.29,) * 3,
        normalized=False,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )


class Watched:
    """Batches that count their images by index, and sample the memory."""

    def __init__(self, batches: Batches, samples: int, every: int) -> None:
        self.batches, self.every = batches, every
        self.counts = np.zeros(samples, dtype=np.uint8)
        self.memory: list[int] = []
        self.mean, self.std = (torch.tensor(x) for x in (batches.mean, batches.std))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the batches."""
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number, (images, labels) in enumerate(self.batches):
            red, green, blue = images[:, :, 0, 0].long().unbind(1)
            np.add.at(self.counts, ((red << 16) + (green << 8) + blue).numpy(), 1)
            if number % self.every == 0:
                self.memory.append(memory_of_this_and_its_workers())
            yield normalize(images, self.mean, self.std), labels


def memory_of_this_and_its_workers() -> int:
    """Return the resident bytes of this process and of each of its descendants.

    A page that two of them share counts twice: how much they share depends on who touches it, not
    on what is kept. Programs that generate shards are left out; they are not part of reading.
    """
    memory, waiting = 0, ["self"]
    while waiting:
        folder = Path("/proc") / waiting.pop()
        try:
            if b"generated_shard" in (folder / "cmdline").read_bytes():
                continue
            memory += int((folder / "statm").read_text().split()[1]) * resource.getpagesize()
            for children in folder.glob("task/*/children"):
                waiting += children.read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # a process that has just ended
            continue
    return memory


def search_stream(options: StreamOptions, ranks: Ranks, console: Console) -> dict:
    """Search for one epoch; return memory and counts of all ranks."""
    batches = stream(options, ranks)
    watched = Watched(batches, options.samples, options.every)
    started = time.perf_counter()

    def say(step: object) -> None:
        if step.step % 500 == 0:
            seconds = time.perf_counter() - started
            console.print(f"batch {step.step:,} of {len(batches):,}, {seconds:,.0f} s")

    plan = search(
        network(),
        watched,
        budget=BUDGET,
        config=recipe("bank", epochs=1, finalists=1),
        on_step=say,
        group=ranks.group,
    )
    seconds = time.perf_counter() - started
    memory = torch.tensor(watched.memory)
    counts = torch.from_numpy(watched.counts)
    memories = [memory]
    if ranks.group is not None:
        memories = [torch.empty_like(memory) for _ in range(ranks.world_size)]
        dist.all_gather(memories, memory, group=ranks.group)
        dist.all_reduce(counts, group=ranks.group)
    series = [m.tolist() for m in memories]
    return {
        "batches": len(batches),
        "seconds": seconds,
        "images_seen": int(counts.sum()),
        "images_seen_once": int((counts == 1).sum()),
        "plan": plan.sizes,
        "tenths_mib": [[round(t, 1) for t in tenths(row)] for row in series],
        "memory_bytes": series,
    }


def tenths(memory: list[int]) -> list[float]:
    """Return the median memory of each tenth of the readings, in MiB."""
    edges = [len(memory) * part // 10 for part in range(11)]
    parts = [memory[low:high] for low, high in pairwise(edges)]
    return [statistics.median(part) / 2**20 for part in parts]


def main() -> None:
    """Run the command line, in every rank."""
    options = tyro.cli(StreamOptions, prog="bench:stream")
    with joined("cpu") as ranks:
        console = PlainConsole(quiet=ranks.rank > 0)
        torch.set_num_threads(1)
        found = search_stream(options, ranks, console)
        for rank, parts in enumerate(found["tenths_mib"]):
            console.print(f"rank {rank}, MiB in each tenth of the epoch: {parts}")
        seen, once = found["images_seen"], found["images_seen_once"]
        console.print(f"{seen:,} images seen, {once:,} of them once")
        if ranks.rank == 0:
            settings = {k: v for k, v in asdict(options).items() if k != "out"}
            content = {"settings": settings, "environment": environment("cpu"), **found}
            write(content, options.out, console)


if __name__ == "__main__":
    sys.exit(run_command("bench:stream", main))
