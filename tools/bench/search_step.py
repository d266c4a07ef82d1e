"""`hatch run bench:search-step`: a search step against a plain training step of the same CNN.

Both networks have the same sizes, batch and optimizer; the steps are interleaved, so that whatever
else the machine does falls on both alike.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from effconv_core import SearchableCNN, recipe
from effconv_core.io.atomic import write_text
from effconv_core.run_files import environment
from effconv_models import create_model
from torch import Tensor, nn


@dataclass(frozen=True)
class Options:
    """Time a search step against a plain training step of the same CNN with the same sizes."""

    model: str = "cifar_resnet20"
    """A name of effconv_models."""
    size: int = 5
    """Kernel size of every searched layer; with the default recipe each step draws around it."""
    recipe: Literal["paper", "default"] = "paper"
    """Whose step is timed."""
    batch_size: int = 128
    warmups: int = 3
    """Pairs of steps that are not counted."""
    pairs: int = 30
    """Pairs of steps that are counted."""
    threads: int = torch.get_num_threads()
    """Threads of the CPU."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path | None = None
    """File for the result as JSON."""


def training_step(
    model: nn.Module,
    groups: list[dict],
    images: Tensor,
    labels: Tensor,
    budget_loss: Callable[[], Tensor | float] = lambda: 0.0,
) -> Callable[[], None]:
    """Give a function that makes one whole step with AdamW."""
    optimizer = torch.optim.AdamW(groups)

    def step() -> None:
        loss = F.cross_entropy(model(images), labels) + budget_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None], device: str) -> float:
    """Time one step, with the device's work done."""
    started = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def spread(times: list[float]) -> dict[str, float]:
    """Give median and 20th and 80th percentile, in seconds."""
    deciles = statistics.quantiles(times, n=10)
    return {"median": statistics.median(times), "p20": deciles[1], "p80": deciles[7]}


def measure(options: Options) -> dict:
    """Time both steps in pairs.

    Raises:
        ValueError: if the size is not one that a search can have.
    """
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(options.batch_size, 3, 32, 32, generator=generator)
    images = images.to(options.device, memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size, device=options.device) % 10

    # The soft sizes start at the wanted size, and this rate keeps them there.
    config = recipe(options.recipe, size_lr=1e-9)
    offset = (options.size - config.k - 1) / config.k
    if not -1 < offset < 1:
        raise ValueError(
            f"size is {options.size}; a search at k = {config.k} runs from 1 to {config.largest} "
            "and starts at neither end, so pass a size between them"
        )
    plain = create_model(options.model, kernel_sizes=options.size, generator=generator)
    b = float(torch.atanh(torch.tensor(offset, dtype=torch.float64)))
    config = dataclasses.replace(config, b=b)
    searchable = SearchableCNN(create_model(options.model, generator=generator), config)
    budget = searchable.cost([options.size] * len(searchable.layers))
    networks = {"plain": plain, "search": searchable}
    for network in networks.values():
        network.to(options.device, memory_format=torch.channels_last).train()
    steps = {
        "plain": training_step(
            plain, [{"params": plain.parameters(), "lr": config.cnn_lr}], images, labels
        ),
        "search": training_step(
            searchable,
            searchable.parameter_groups(),
            images,
            labels,
            lambda: searchable.budget_loss(budget),
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for pair in range(options.warmups + options.pairs):
        order = list(steps) if pair % 2 else list(steps)[::-1]
        for name in order:
            times[name].append(seconds(steps[name], options.device))
        if searchable.sizes != [options.size] * len(searchable.sizes):
            raise RuntimeError(f"the sizes left {options.size}: {searchable.sizes}")
    counted = {name: all_times[options.warmups :] for name, all_times in times.items()}
    ratios = [s / p for s, p in zip(counted["search"], counted["plain"], strict=True)]
    return {
        "parameters": sum(p.numel() for p in plain.parameters()),
        "seconds": {name: spread(list_) for name, list_ in counted.items()},
        "ratio_of_medians": statistics.median(counted["search"])
        / statistics.median(counted["plain"]),
        "ratio_of_pairs": spread(ratios),
        "all_seconds": counted,
    }


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="bench:search-step")
    result = measure(options)
    for name, value in result["seconds"].items():
        print(
            f"{name:>6} step: median {value['median']:.4f} s, "
            f"20th to 80th percentile {value['p20']:.4f} to {value['p80']:.4f} s"
        )
    print(f"search / plain: {result['ratio_of_medians']:.3f} (ratio of medians)")
    if options.out is not None:
        settings = {k: v for k, v in asdict(options).items() if k != "out"}
        content = {"settings": settings, "environment": environment(options.device), **result}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.out, json.dumps(content, indent=1) + "\n")
        print(f"{options.out} written")


if __name__ == "__main__":
    main()
