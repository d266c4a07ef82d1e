"""`hatch run bench:latency`: times that a latency table predicts, against those of built networks.

Each short round measures a table and then, in turns, the plain CNNs of all plans, so that whatever
else the machine does falls on both sides; what is compared are the medians over rounds. One long
round is what a user of a table gets.
"""

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from effconv_core import Budget, Latency, SearchableCNN, apply_plan
from effconv_core.io.atomic import write_text
from effconv_core.latency import stopwatch
from effconv_core.run_files import environment
from effconv_core.sources import make_model
from rich.console import Console
from rich.table import Table

import tools.support.compat  # noqa: F401


@dataclass(frozen=True)
class Options:
    """Compare the time that a latency table predicts with that of the network that is built."""

    model: str = "effconv:cifar_resnet20"
    """effconv:NAME, torchvision:NAME, timm:NAME or package.module:function."""
    batch_size: int = 32
    image_size: int = 32
    """Height and width of the images in pixels."""
    random_plans: int = 6
    """Plans of sizes drawn evenly, beside all sizes 3, 5 and 7 and one found for a budget."""
    rounds: int = 10
    """Of a table, and then the networks."""
    repetitions: int = 4
    """Counted forward passes of each network in a round, and of those that make the table."""
    warmups: int = 1
    seed: int = 0
    """Of images, weights and random plans."""
    threads: int = torch.get_num_threads()
    """Threads of the CPU."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path | None = None
    """File for the result as JSON."""


def plans_of(searchable: SearchableCNN, latency: Latency, options: Options) -> dict[str, list[int]]:
    """Give the plans by name: even ones, drawn ones, and one that meets a budget of time."""
    L, generator = len(searchable.layers), torch.Generator().manual_seed(options.seed)
    plans = {f"all {size}": [size] * L for size in (3, 5, 7)}
    for n in range(options.random_plans):
        drawn = torch.randint(1, 8, (L,), generator=generator).tolist()
        plans[f"random {n + 1}"] = drawn
    cost = latency(searchable)
    wanted = (cost([1] * L) + cost([7] * L)) / 2
    found = searchable.nearest_sizes([4.0] * L, Budget(wanted, latency))
    return plans | {"for a budget": found}


def measure(options: Options) -> list[dict]:
    """Give for each plan its sizes, and the predicted and measured seconds of each round."""
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(options.seed)
    images = torch.randn(
        options.batch_size, 3, options.image_size, options.image_size, generator=generator
    ).to(options.device)
    torch.manual_seed(options.seed)
    model = make_model(options.model).to(options.device).eval()
    searchable = SearchableCNN(model)
    watch = stopwatch(images.device)
    rows: list[dict] = []
    for _ in range(options.rounds):
        # Another counter measures anew.
        latency = Latency(images, repetitions=options.repetitions, warmups=options.warmups)
        cost = latency(searchable)
        if not rows:
            rows = [
                {"plan": name, "sizes": sizes, "predicted": [], "measured": []}
                for name, sizes in plans_of(searchable, latency, options).items()
            ]
            cnns = [
                apply_plan(
                    model,
                    dict(zip(searchable.layers, row["sizes"], strict=True)),
                    generator=generator,
                ).eval()
                for row in rows
            ]
        times: list[list[float]] = [[] for _ in rows]
        with torch.no_grad():
            for repetition in range(options.warmups + options.repetitions):
                pairs = list(zip(cnns, times, strict=True))
                for cnn, own in pairs if repetition % 2 else pairs[::-1]:
                    start = watch.mark()
                    cnn(images)
                    nanoseconds = watch.between(start, watch.mark())
                    if repetition >= options.warmups:
                        own.append(nanoseconds / 1e9)
        for row, own in zip(rows, times, strict=True):
            row["predicted"].append(cost(row["sizes"]) / 1e9)
            row["measured"].append(statistics.median(own))
    for row in rows:
        pairs = zip(row["predicted"], row["measured"], strict=True)
        row["errors"] = [predicted / measured - 1 for predicted, measured in pairs]
        row["error"] = statistics.median(row["predicted"]) / statistics.median(row["measured"]) - 1
    return rows


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="bench:latency")
    rows, console = measure(options), Console()
    table = Table(title=f"{options.model}, batch {options.batch_size}, medians of rounds, ms")
    for column in ("plan", "predicted", "measured", "error", "least and greatest of a round"):
        table.add_column(column, justify="left" if column == "plan" else "right")
    for row in rows:
        predicted, measured = (statistics.median(row[n]) for n in ("predicted", "measured"))
        table.add_row(
            row["plan"],
            f"{predicted * 1e3:.2f}",
            f"{measured * 1e3:.2f}",
            f"{row['error']:+.1%}",
            f"{min(row['errors']):+.1%} to {max(row['errors']):+.1%}",
        )
    console.print(table)
    worst = max(abs(row["error"]) for row in rows)
    console.print(f"largest error of the medians: {worst:.1%}")
    if options.out is not None:
        settings = {k: v for k, v in asdict(options).items() if k != "out"}
        content = {
            "settings": settings,
            "environment": environment(options.device),
            "largest_error": worst,
            "plans": rows,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.out, json.dumps(content, indent=1) + "\n")
        console.print(f"{options.out} written")


if __name__ == "__main__":
    main()
