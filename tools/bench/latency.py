"""`hatch run bench:latency`: times predicted by a latency table, against those of built networks.

Each short round measures a table and then, alternately, the plain CNNs of all plans, so that other
load affects both sides; medians over rounds are compared. One long round is what a user of a
table gets.
"""

import statistics
from dataclasses import dataclass
from functools import partial

import torch
from effconv_core import Budget, Latency, SearchableCNN, apply_plan
from effconv_core.cli.specifiers.model import make_model
from rich.console import Console

import tools.support.compat  # noqa: F401
from tools.bench.core import BenchOptions, interleave, result, run_bench, write
from tools.support.console import show


@dataclass(frozen=True, kw_only=True)
class LatencyOptions(BenchOptions):
    """Compare the time that a latency table predicts with that of the built network."""

    model: str = "effconv:cifar_resnet20"
    """effconv:NAME, torchvision:NAME, timm:NAME or package.module:function."""
    batch_size: int = 32
    image_size: int = 32
    """Height and width of the images in pixels."""
    random_plans: int = 6
    """Number of random plans, in addition to all sizes 3, 5 and 7 and one found for a budget."""
    rounds: int = 10
    """Rounds, each of a table and then the networks."""
    repetitions: int = 4
    """Timed forward passes of each network in a round, and of those that make the table."""
    warmups: int = 1
    seed: int = 0
    """Seed of images, weights and random plans."""


def plans_of(
    searchable: SearchableCNN, latency: Latency, options: LatencyOptions
) -> dict[str, list[int]]:
    """Return the plans by name: even ones, drawn ones, and one that meets a budget of time."""
    L, generator = len(searchable.layers), torch.Generator().manual_seed(options.seed)
    plans = {f"all {size}": [size] * L for size in (3, 5, 7)}
    for n in range(options.random_plans):
        drawn = torch.randint(1, 8, (L,), generator=generator).tolist()
        plans[f"random {n + 1}"] = drawn
    cost = latency(searchable)
    wanted = (cost([1] * L) + cost([7] * L)) / 2
    found = searchable.nearest_sizes([4.0] * L, Budget(wanted, latency))
    return plans | {"for a budget": found}


def time_plans(options: LatencyOptions) -> list[dict]:
    """Return for each plan its sizes, and the predicted and measured seconds of each round."""
    generator = torch.Generator().manual_seed(options.seed)
    images = torch.randn(
        options.batch_size, 3, options.image_size, options.image_size, generator=generator
    ).to(options.device)
    torch.manual_seed(options.seed)
    model = make_model(options.model).to(options.device).eval()
    searchable = SearchableCNN(model)
    rows: list[dict] = []
    for _ in range(options.rounds):
        # A new counter measures again.
        latency = Latency(images, repetitions=options.repetitions, warmups=options.warmups)
        cost = latency(searchable)
        if not rows:
            plans = plans_of(searchable, latency, options)
            rows = [
                {"plan": name, "sizes": sizes, "predicted": [], "measured": []}
                for name, sizes in plans.items()
            ]
            passes = {}
            for name, sizes in plans.items():
                plan = dict(zip(searchable.layers, sizes, strict=True))
                cnn = apply_plan(model, plan, generator=generator).eval()
                passes[name] = partial(cnn, images)
        with torch.no_grad():
            times = interleave(
                passes, options.repetitions, device=options.device, warmups=options.warmups
            )
        for row in rows:
            row["predicted"].append(cost(row["sizes"]) / 1e9)
            row["measured"].append(statistics.median(times[row["plan"]]))
    for row in rows:
        pairs = zip(row["predicted"], row["measured"], strict=True)
        row["errors"] = [predicted / measured - 1 for predicted, measured in pairs]
        row["error"] = statistics.median(row["predicted"]) / statistics.median(row["measured"]) - 1
    return rows


def run(options: LatencyOptions, console: Console) -> None:
    """Time tables and networks, say how far they are apart, and write the result."""
    rows = time_plans(options)
    worst = max(abs(row["error"]) for row in rows)
    write(result(options, largest_error=worst, plans=rows), options.out, console)
    show(
        console,
        f"{options.model}, batch {options.batch_size}, medians of rounds, ms",
        ("plan", "predicted", "measured", "error", "least and greatest of a round"),
        [
            (
                row["plan"],
                *(f"{statistics.median(row[n]) * 1e3:.2f}" for n in ("predicted", "measured")),
                f"{row['error']:+.1%}",
                f"{min(row['errors']):+.1%} to {max(row['errors']):+.1%}",
            )
            for row in rows
        ],
    )
    console.print(f"largest error of the medians: {worst:.1%}")


if __name__ == "__main__":
    run_bench("bench:latency", LatencyOptions, run)
