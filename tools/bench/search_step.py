"""`hatch run bench:search-step`: a search step against a plain training step of the same CNN."""

import statistics
from dataclasses import dataclass
from functools import partial
from typing import Literal

from effconv_models import create_model
from rich.console import Console

from tools.bench.core import BenchOptions, interleave, quantiles, result, run_bench, write
from tools.bench.steps import check_held, held_at, plain_and_search, random_batch


@dataclass(frozen=True, kw_only=True)
class SearchStepOptions(BenchOptions):
    """Time a search step against a plain training step of the same CNN with the same sizes."""

    model: str = "cifar_resnet20"
    """A name of effconv_models."""
    size: int = 5
    """Kernel size of each searched layer; with the default recipe each step draws around it."""
    recipe: Literal["paper", "default"] = "paper"
    """Recipe of the timed step."""
    batch_size: int = 128
    warmups: int = 3
    """Warm-up pairs of steps."""
    pairs: int = 30
    """Timed pairs of steps."""


def time_pairs(options: SearchStepOptions) -> dict:
    """Time both steps in pairs; return what the raw result holds of it.

    Raises:
        ValueError: if a search cannot have the size.
        RuntimeError: if the sizes did not stay where they were put.
    """
    batch = random_batch(options.batch_size, 32, options.device)
    steps, searchable = plain_and_search(
        lambda size: create_model(options.model, kernel_sizes=size),
        options.size,
        held_at(options.size, options.recipe),
        batch,
    )
    times = interleave(
        steps,
        options.pairs,
        device=options.device,
        warmups=options.warmups,
        after=partial(check_held, searchable, options.size),
    )
    ratios = [s / p for s, p in zip(times["search"], times["plain"], strict=True)]
    plain, search = (statistics.median(times[name]) for name in ("plain", "search"))
    return {
        "parameters": int(searchable.cost([options.size] * len(searchable.layers))),
        "seconds": {name: quantiles(own) for name, own in times.items()},
        "ratio_of_medians": search / plain,
        "ratio_of_pairs": quantiles(ratios),
        "all_seconds": times,
    }


def run(options: SearchStepOptions, console: Console) -> None:
    """Time both steps, say how they compare, and write the result."""
    found = time_pairs(options)
    write(result(options, **found), options.out, console)
    for name, value in found["seconds"].items():
        console.print(
            f"{name:>6} step: median {value['median']:.4f} s, "
            f"20th to 80th percentile {value['p20']:.4f} to {value['p80']:.4f} s"
        )
    console.print(f"search / plain: {found['ratio_of_medians']:.3f} (ratio of medians)")


if __name__ == "__main__":
    run_bench("bench:search-step", SearchStepOptions, run)
