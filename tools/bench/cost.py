"""`hatch run bench:cost`: scaling of a search's time, and a forecast for ImageNet-1k.

Search steps, and plain training steps of the same networks, are timed while one variable at a time
changes: layers L, hidden size H of the GRUs, channels c, kernel size s, image size, and ranks. A
model of a few non-negative terms is fitted to the times; held-out networks check it; and it is
then applied to networks and a set that were never run here.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from effconv_core import SearchableCNN, apply_plan, check_ranks
from effconv_core.distributed.consistency import data_parallel
from effconv_core.distributed.process_group import joined
from effconv_core.io.atomic import write_text
from effconv_models import create_model
from rich.console import Console
from scipy.optimize import nnls
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

import tools.support.compat  # noqa: F401, before torchvision
from tools.bench.core import BenchOptions, interleave, result, run_bench, write
from tools.bench.steps import held_at, random_batch, search_step, to_device, training_step
from tools.support.console import show

TERMS = ("step", "layers", "multiplications", "values", "gru", "projection", "parameters")
RANK_TERMS = ("step", "parameters")
IMAGES = 1_281_167
"""Images in ImageNet-1k's train split."""


@dataclass(frozen=True)
class CostPoint:
    """One network to be timed."""

    model: str = "stack"
    """A name of effconv_models, one of torchvision's as `torchvision:NAME`, or `stack`: L
    convolutions with as many channels in as out."""
    layers: int = 6
    """L of the stack."""
    channels: int = 24
    """s of each searched layer, the initial soft size; the default recipe draws around it."""
    size: int = 3
    """s of every searched layer, where the soft sizes start; the default recipe draws around it."""
    image: int = 32
    hidden: int = 64
    """H of both predictors."""
    batch: int = 8
    """Images per step of one rank."""
    ranks: int = 1
    recipe: str = "paper"


@dataclass(frozen=True, kw_only=True)
class CostOptions(BenchOptions):
    """Time points, fit the model, check it, and predict."""

    warmups: int = 2
    """Warm-up steps of each kind at each point."""
    repetitions: int = 6
    """Timed steps of each kind."""
    batch: int = 8
    """Images per step of one rank."""
    threads: int = 1
    out: Path = Path("results/cost.json")
    """File for the result as JSON."""


def points(batch: int) -> list[CostPoint]:
    """Return the points that the model is fitted to."""
    made = []
    for name in ("paper", "default"):
        base = CostPoint(batch=batch, recipe=name)
        made += [base]
        made += [replace(base, layers=n) for n in (2, 12, 24)]
        made += [replace(base, channels=n) for n in (8, 48, 96)]
        made += [replace(base, size=n) for n in (2, 4, 5, 6)]
        made += [replace(base, image=n) for n in (8, 16, 64)]
        made += [replace(base, hidden=n) for n in (16, 128, 256)]
        made += [replace(base, batch=n * batch) for n in (2, 4)]
        # As wide as the last layers of large networks, where the projection matters.
        made += [replace(base, layers=2, channels=256, image=n) for n in (4, 8)]
    return made


def rank_points(batch: int) -> list[CostPoint]:
    """Return the points that are timed on two ranks, and on one."""
    return [CostPoint(batch=batch, recipe="default", channels=n) for n in (8, 24, 48, 96)]


def held_out(batch: int) -> list[CostPoint]:
    """Return the points that only check the model."""
    return [
        replace(point, recipe=name)
        for name in ("paper", "default")
        for point in (
            CostPoint("cifar_resnet20", batch=batch),
            CostPoint("torchvision:resnet18", image=224, batch=max(2, batch // 4)),
            CostPoint(layers=10, channels=40, size=4, image=24, batch=batch),
        )
    ]


def make(point: CostPoint) -> tuple[nn.Module, SearchableCNN, float]:
    """Return the plain network of a point with its sizes, the searchable one, and the budget."""
    generator = torch.Generator().manual_seed(0)
    if point.model == "stack":
        c, parts = point.channels, [nn.Conv2d(3, point.channels, 3, padding=1)]
        for _ in range(point.layers):
            parts += [nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU()]
        model = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))
    elif point.model.startswith("torchvision:"):
        import torchvision

        model = torchvision.models.get_model(point.model.removeprefix("torchvision:"))
    else:
        model = create_model(point.model, generator=generator)
    hidden = {"size_hidden": point.hidden, "kernel_hidden": point.hidden}
    searchable = SearchableCNN(model, held_at(point.size, point.recipe, **hidden))
    plan = dict.fromkeys(searchable.layers, point.size)
    return apply_plan(model, plan, generator=generator), searchable, searchable.cost(plan.values())


def count(point: CostPoint, network: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Count what a training step of a network does, by its forward pass.

    Returns:
        For each of TERMS its amount: 1 for the step; searched layers; multiplications of all
        convolutions and linear maps; values that modules give; multiplications of the GRUs and of
        the projections; and trained parameters. The last four of a plain network are its own.
    """
    amounts = dict.fromkeys(TERMS, 0.0) | {"step": 1.0}
    searched = isinstance(network, SearchableCNN)

    def look(module: nn.Module, _: object, outputs: torch.Tensor) -> None:
        amounts["values"] += outputs.numel() / passes

    cnn = network.model if searched else network
    leaves = [module for module in cnn.modules() if not list(module.children())]
    handles = [module.register_forward_hook(look) for module in leaves]
    passes = 20 if searched and network.config.exploration else 1
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for _ in range(passes):  # where sizes are drawn, their mean
            network(images)
    for handle in handles:
        handle.remove()
    where = "SearchableCNN.model" if searched else "Global"
    # One multiplication and one addition count as two.
    amounts["multiplications"] = sum(counter.get_flop_counts()[where].values()) / 2 / passes
    amounts["parameters"] = sum(p.numel() for p in network.parameters())
    if searched:
        amounts["layers"] = len(network.layers)
        H, L = point.hidden, len(network.layers)
        amounts["gru"] = 3 * H * H * L  # the size predictor's
        if network.config.kernel_form == "projected":
            steps = point.size**2
            channels = [math.prod(layer.channels) for layer in network.space.layers]
            amounts["gru"] += 3 * H * H * steps * L
            amounts["projection"] = steps * H * sum(channels)
    return amounts


def time_cost_point(point: CostPoint, options: CostOptions, device: str, group: object) -> dict:
    """Time a point's search step and plain step in turns; return seconds and amounts of both."""
    plain, searchable, budget = make(point)
    for network in (plain, searchable):
        to_device(network, device)
    batch = random_batch(point.batch, point.image, device)
    amounts = {"plain": count(point, plain, batch[0]), "search": count(point, searchable, batch[0])}
    parallel = plain if group is None else DistributedDataParallel(plain, process_group=group)
    groups = [{"params": plain.parameters(), "lr": 1e-3}]
    alone = search_step(searchable, batch, budget, data_parallel(searchable, group))

    def search() -> None:
        alone()
        check_ranks(searchable, group)

    times = interleave(
        {"plain": training_step(parallel, groups, batch), "search": search},
        options.repetitions,
        device=device,
        warmups=options.warmups,
    )
    seconds = {name: statistics.median(own) for name, own in times.items()}
    return {"point": asdict(point), "amounts": amounts, "seconds": seconds, "all_seconds": times}


def on_two_ranks(options: CostOptions) -> list[dict]:
    """Time the rank points in two processes, and return rank 0's rows."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        settings = [f"--{name}={getattr(options, name)}" for name in ("warmups", "repetitions")]
        settings += [f"--batch={options.batch}", f"--device={options.device}", f"--out={file}"]
        command = [sys.executable, *torchrun, "-m", "tools.bench.cost", *settings]
        subprocess.run(command, check=True)
        return json.loads(file.read_text(encoding="utf-8"))


Step = tuple[dict[str, float], float]
"""The amounts of a step, and its seconds."""


def steps_of(rows: list[dict], *kinds: str) -> list[Step]:
    """Return the steps of rows, of the kinds `plain` and `search`."""
    return [(row["amounts"][kind], row["seconds"][kind]) for row in rows for kind in kinds]


def fit(steps: list[Step], terms: tuple[str, ...]) -> dict[str, float]:
    """Fit non-negative seconds per unit of each term, by least relative error."""
    amounts = np.array([[amount[term] for term in terms] for amount, _ in steps])
    seconds = np.array([taken for _, taken in steps])
    scale = np.maximum(amounts.max(axis=0), 1e-30)
    coefficients, _ = nnls(amounts / scale / seconds[:, None], np.ones(len(steps)))
    return dict(zip(terms, (coefficients / scale).tolist(), strict=True))


def predicted(model: dict[str, float], amounts: dict[str, float]) -> float:
    """Return the seconds of a step."""
    return sum(each * amounts[term] for term, each in model.items())


def errors(steps: list[Step], model: dict[str, float]) -> list[float]:
    """Return predicted over measured, less 1, for each step."""
    return [predicted(model, amounts) / seconds - 1 for amounts, seconds in steps]


def imagenet(model: dict[str, float], across: dict[str, float]) -> list[dict]:
    """Predict searches on ImageNet-1k at 224x224, batch 256, from one image's amounts."""
    rows = []
    for name in ("torchvision:resnet18", "torchvision:resnet50"):
        for kind in ("paper", "default"):
            point = CostPoint(name, image=224, batch=1, recipe=kind)
            plain, searchable, _ = make(point)
            image = torch.zeros(1, 3, 224, 224)
            row = {"model": name, "recipe": kind, "epochs": searchable.config.epochs}
            for ranks in (1, 8):
                share = 256 // ranks
                seconds = {}
                for what, network in (("plain", plain), ("search", searchable)):
                    amounts = count(point, network, image)
                    for term in ("multiplications", "values"):
                        amounts[term] *= share
                    seconds[what] = predicted(model, amounts)
                    if ranks > 1:
                        volume = {"step": 1.0, "parameters": amounts["parameters"]}
                        # A ring moves 2 (R - 1) / R of the parameters past each of R ranks.
                        volume["parameters"] *= 2 * (ranks - 1) / ranks
                        seconds[what] += predicted(across, volume)
                hours = seconds["search"] * IMAGES / 256 * row["epochs"] / 3600
                row |= {
                    f"search_step_over_plain_step_on_{ranks}": seconds["search"] / seconds["plain"],
                    f"hours_on_{ranks}": hours,
                }
            rows.append(row)
    return rows


def run(options: CostOptions, console: Console) -> None:
    """Time all points, fit, check, predict, write; under torchrun, time the rank points only."""
    with joined(options.device) as ranks:
        if ranks.group is not None:
            todo = [replace(p, ranks=ranks.world_size) for p in rank_points(options.batch)]
            rows = [time_cost_point(point, options, ranks.device, ranks.group) for point in todo]
            if ranks.rank == 0:
                write_text(options.out, json.dumps(rows))
            return
    groups = {"fitted": points(options.batch), "held out": held_out(options.batch)}
    groups["ranks, on one"] = rank_points(options.batch)
    timed: dict[str, list[dict]] = {name: [] for name in groups}
    for name, todo in groups.items():
        for point in todo:
            row = time_cost_point(point, options, options.device, None)
            timed[name].append(row)
            shown = {k: v for k, v in row["point"].items() if v != getattr(CostPoint, k)}
            console.print(f"{name} {shown}: {row['seconds']['search']:.4f} s", highlight=False)
    if options.device == "cpu" or torch.cuda.device_count() > 1:
        timed["ranks, on two"] = on_two_ranks(options)
    content = {**result(options), **fitted(timed)}
    content["imagenet_1k"] = imagenet(*content["seconds_per_unit"].values())
    content["points"] = timed
    write(content, options.out, console)
    show_cost(console, content)


def fitted(timed: dict[str, list[dict]]) -> dict:
    """Fit the model to timed points, and check it by the held-out ones.

    Args:
        timed: the rows of each group of points.
    """
    # One model of plain and search steps, so that their difference is the search's own cost.
    model = fit(steps_of(timed["fitted"], "plain", "search"), TERMS)
    across = dict.fromkeys(RANK_TERMS, 0.0)
    if "ranks, on two" in timed:
        pairs = zip(
            steps_of(timed["ranks, on two"], "search"),
            steps_of(timed["ranks, on one"], "search"),
            strict=True,
        )
        more = [(amounts, max(two - one, 1e-6)) for (amounts, two), (_, one) in pairs]
        across = fit(more, RANK_TERMS)
    checks = {}
    for group in ("fitted", "held out"):
        checks[f"{group}, plain"] = errors(steps_of(timed[group], "plain"), model)
        for name in ("paper", "default"):
            rows = [row for row in timed[group] if row["point"]["recipe"] == name]
            checks[f"{group}, {name}"] = errors(steps_of(rows, "search"), model)
    return {
        "seconds_per_unit": {"step": model, "second rank": across},
        "predicted_over_measured_less_1": checks,
    }


def show_cost(console: Console, content: dict) -> None:
    """Print the model, its errors and the forecast."""
    show(
        console,
        "seconds for a unit of each term",
        ("", *TERMS),
        [
            (name, *(f"{model[term]:.2e}" if term in model else "" for term in TERMS))
            for name, model in content["seconds_per_unit"].items()
        ],
    )
    for name, off in content["predicted_over_measured_less_1"].items():
        median, worst = statistics.median(map(abs, off)), max(off, key=abs)
        console.print(f"{name}: median error {median:.1%}, the largest {worst:+.1%}")
    forecast = content["imagenet_1k"]
    show(
        console,
        "a search on ImageNet-1k at 224x224, batch 256, predicted",
        [column.replace("_", " ") for column in forecast[0]],
        [[f"{v:.2f}" if isinstance(v, float) else v for v in row.values()] for row in forecast],
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run_bench("bench:cost", CostOptions, run)
