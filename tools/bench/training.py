"""`hatch run bench:training`: what a step of a training and of a search costs in each way.

The network is EffConv-20 of the budget: sizes as equal as it allows. The ways take their steps in
turns on the same batches of real pictures, so that whatever else the machine does falls on all of
them; the batch's own time, with augmentation, is told apart. What `torch.compile` takes before the
first step, and how many graphs it makes, is told too.
"""

import itertools
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from effconv_core import SearchableCNN, SearchConfig, SizePlan, apply_plan, recipe
from effconv_core.divergence import finite_soon
from effconv_core.endings import check_device, run_command
from effconv_core.io.atomic import write_text
from effconv_core.run_files import environment
from effconv_data import load
from effconv_models import create_model
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._dynamo.utils import counters

from tools.bench.search_step import spread
from tools.presets import data_note

EPOCH_SECONDS, RATIO = 2.0, 1.2
"""Targets on an H200: a training epoch, and a search epoch over it."""
PICTURES = 50_000
LEAST = 5  # rounds that are counted in any case
CUDA = torch.cuda.is_available()


@dataclass(frozen=True)
class Way:
    """How a step is run."""

    recipe: str = ""
    """Of the search whose step it is; empty trains the CNN of the same sizes."""
    bfloat16: bool = False
    shapes: str = "exact"
    """Of a search's kernels; exact ones stay as they are only where nothing is drawn."""
    compile: str = ""
    """Mode of `torch.compile`; empty runs eagerly. `reduce-overhead` is CUDA graphs."""
    channels_last: bool = True

    def __str__(self) -> str:
        search = [f"search, {self.recipe}", self.shapes] if self.recipe else ["training"]
        compiled = {"": [], "default": ["compiled"], "reduce-overhead": ["CUDA graphs"]}
        precision = "bfloat16" if self.bfloat16 else "float32"
        layout = [] if self.channels_last else ["contiguous"]
        return ", ".join([*search, precision, *layout, *compiled[self.compile]])


def ways(device: str, recipes: tuple[str, ...]) -> Iterator[Way]:
    """Give the ways to compare: first what is soon begun, then what matters most."""
    on_gpu = device.startswith("cuda")
    graphs = "reduce-overhead" if on_gpu else "default"
    for bfloat16 in (True, False):
        yield Way(bfloat16=bfloat16)
        for name, shapes in itertools.product(recipes, ("exact", "padded")):
            yield Way(name, bfloat16, shapes)
    yield Way(channels_last=False)
    for bfloat16 in (True, False):
        yield Way(bfloat16=bfloat16, compile=graphs)
        for name in recipes:
            yield Way(name, bfloat16, "padded", graphs)
        if on_gpu and bfloat16:
            yield Way(bfloat16=True, compile="default")
            # The paper's sizes seldom change, so that a graph for each tuple could be kept.
            if "paper" in recipes:
                yield Way("paper", True, "exact", graphs)


@dataclass(frozen=True)
class Options:
    """Time steps of trainings and searches on CIFAR-10 in each way to run them."""

    model: str = "cifar_resnet20"
    """A name of effconv_models."""
    budget: float = 0.66e6
    """Parameters of the network, as in the paper's timings of EffConv-20."""
    recipes: tuple[str, ...] = ("default", "paper")
    """Of the searches."""
    batch_size: int = 128
    rounds: int = 10
    """Counted turns of each way."""
    steps: int = 20 if CUDA else 1
    """Steps of a turn, behind which a GPU is waited for."""
    seeds: tuple[int, ...] = (2, 4) if CUDA else ()
    """How many processes, a seed each, train and search side by side on the device in the quickest
    ways; empty leaves that out. They share a GPU in turns, and at the same time where NVIDIA's MPS
    daemon runs."""
    minutes: float | None = None
    """Ways that are not begun after half of this are left out, but for the first; rounds but the
    first five after two thirds, and processes side by side after four fifths."""
    threads: int = torch.get_num_threads()
    """Threads of the CPU."""
    device: str = "cuda" if CUDA else "cpu"
    out: Path | None = None
    """File for the result as JSON."""

    def __post_init__(self) -> None:
        # A percentile takes two.
        for name, least in (("rounds", 2), ("steps", 1), ("threads", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be at least {least}, so raise it"
                )


def equal_plan(options: Options) -> tuple[SizePlan, float]:
    """Give the plan of the budget whose sizes are as equal as can be, and the soft size of all."""
    searchable = SearchableCNN(create_model(options.model))
    cost = searchable.cost
    least, most = cost([1] * len(searchable.layers)), cost([7] * len(searchable.layers))
    if not least <= options.budget <= most:
        raise ValueError(
            f"budget is {options.budget:,.0f}; sizes 1 to 7 of {options.model} cost "
            f"{least:,.0f} to {most:,.0f} parameters, so pass something between"
        )
    soft_size = math.sqrt((options.budget - cost.constant) / sum(cost.per_tap))
    soft_sizes = [soft_size] * len(searchable.layers)
    sizes = searchable.nearest_sizes(soft_sizes, options.budget)
    return searchable.plan_of(sizes, soft_sizes, options.budget), soft_size


def search_config(way: Way, soft_size: float) -> SearchConfig:
    """Give a way's recipe with soft sizes that start at one and stay there."""
    start = recipe(way.recipe)
    settings = {
        "b": math.atanh((soft_size - start.k - 1) / start.k),
        "size_lr": 1e-9,
        "precision": "bfloat16" if way.bfloat16 else "float32",
        "shapes": way.shapes,
        "compile": bool(way.compile) and way.shapes == "padded",
    }
    return recipe(way.recipe, **settings)


class Stepped:
    """A network and its optimizer, run in one way."""

    def __init__(self, way: Way, options: Options) -> None:
        self.way, self.device = way, options.device
        plan, soft_size = equal_plan(options)
        generator = torch.Generator().manual_seed(0)
        model = create_model(options.model, generator=generator)
        self.penalty: Callable[[], Tensor | float] = lambda: 0.0
        if way.recipe:
            model = SearchableCNN(model, search_config(way, soft_size))
            self.optimizer = torch.optim.AdamW(model.parameter_groups())
            self.penalty = lambda: self.model.budget_loss(options.budget)
        else:
            model = apply_plan(model, plan, generator=generator)
            self.optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        model = model.to(options.device).train()
        self.model: nn.Module = (
            model.to(memory_format=torch.channels_last) if way.channels_last else model
        )
        self.forward = self.model
        if way.compile and way.recipe and way.shapes == "exact":
            compile_network(self.model, mode=way.compile)
        elif way.compile and not way.recipe:
            self.forward = torch.compile(self.model, mode=way.compile)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """Take one step, as `search` and the trainings of `tools` do."""
        if not self.way.channels_last:
            images = images.contiguous()
        lower = self.way.bfloat16 and not self.way.recipe
        self.optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, lower):
            outputs = self.forward(images)
        loss = F.cross_entropy(outputs.float(), labels) + self.penalty()
        is_finite = finite_soon(loss)
        loss.backward()
        if not is_finite():
            raise FloatingPointError(f"the loss of {self.way} is {loss.item()}")
        self.optimizer.step()

    def turn(self, batches: list[tuple[Tensor, Tensor]]) -> float:
        """Give the seconds of a step over some batches, with the device's work done."""
        started = time.perf_counter()
        for batch in batches:
            self.step(*batch)
        wait(self.device)
        return (time.perf_counter() - started) / len(batches)


def compile_network(searchable: SearchableCNN, **how: Any) -> None:
    """Compile the CNN of a search on exact kernels, a graph for each tuple of sizes.

    The kernels are the graph's inputs. As attributes of the layers, PyTorch would take them to lie
    where they lay in the first step, and record a CUDA graph anew wherever they do not.

    Args:
        searchable: whose `model` is run by the graphs from now on.
        how: what `torch.compile` takes.
    """
    run = searchable.model.forward

    def on_kernels(kernels: list[Tensor], images: Tensor) -> Tensor:
        with searchable.kernels_of(kernels):
            return run(images)

    compiled = torch.compile(on_kernels, **how)

    def forward(images: Tensor) -> Tensor:
        return compiled([conv.kernel for conv in searchable.convs], images)

    searchable.model.forward = forward


def wait(device: str) -> None:
    """Wait until a GPU has done all of its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def endless(options: Options) -> Iterator[tuple[Tensor, Tensor]]:
    """Give batches without an end."""
    loader = load("cifar10", batch_size=options.batch_size, device=options.device)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def prepared(way: Way, options: Options, batches: list) -> tuple[Stepped, float, int]:
    """Give a way after a first step, the seconds of that, and how many graphs it compiled.

    Further steps follow it: a CUDA graph is recorded in the second.
    """
    before = counters["stats"]["unique_graphs"]
    stepped = Stepped(way, options)
    first = stepped.turn(batches[:1])
    for _ in range(2):
        stepped.turn(batches)
    return stepped, first, counters["stats"]["unique_graphs"] - before


def passed(began: float, options: Options, share: float) -> bool:
    """Tell whether a share of the minutes is over."""
    if options.minutes is None:
        return False
    return time.perf_counter() - began > share * 60 * options.minutes


def measure(options: Options, console: Console, began: float) -> dict[str, Any]:
    """Time all ways in turns.

    Args:
        options: of the command line.
        console: told each way that is ready.
        began: when the minutes began.

    Returns:
        Seconds of each counted turn by way, and those of the batches as `batch`; the seconds of
        each way's first step; how many graphs it compiled; and the ways left out for time.
    """
    torch.set_num_threads(options.threads)
    given = endless(options)
    warm = list(itertools.islice(given, options.steps))
    steppeds, first, graphs, left_out = {}, {}, {}, []
    for way in ways(options.device, options.recipes):
        if steppeds and passed(began, options, 1 / 2):
            left_out.append(str(way))
            continue
        name = str(way)
        steppeds[name], first[name], graphs[name] = prepared(way, options, warm)
        console.print(f"{name}: {first[name]:.1f} s to the first step", highlight=False)
    times: dict[str, list[float]] = {name: [] for name in ("batch", *steppeds)}
    for number in range(options.rounds):
        if number >= LEAST and passed(began, options, 2 / 3):
            break
        started = time.perf_counter()
        batches = list(itertools.islice(given, options.steps))
        wait(options.device)
        times["batch"].append((time.perf_counter() - started) / options.steps)
        for name in list(steppeds)[:: 1 if number % 2 else -1]:
            times[name].append(steppeds[name].turn(batches))
    return {"all_seconds": times, "first_step": first, "graphs": graphs, "left_out": left_out}


def beside(way: Way, options: Options, barrier: Any, results: Any) -> None:
    """Take a process's steps beside others, and give what one of them took."""
    torch.set_num_threads(options.threads)
    batches = list(itertools.islice(endless(options), options.steps))
    stepped = prepared(way, options, batches)[0]
    barrier.wait()
    results.put([stepped.turn(batches) for _ in range(options.rounds)])


def side_by_side(way: Way, options: Options, processes: int) -> dict[str, float]:
    """Give a step's median seconds in so many processes, and the steps a second of all of them."""
    context = multiprocessing.get_context("spawn")  # a forked process cannot use the parent's GPU
    barrier, results = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=beside, args=(way, options, barrier, results), daemon=True)
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    medians = [statistics.median(results.get(timeout=600)) for _ in workers]
    for worker in workers:
        worker.join()
    return {"step": statistics.median(medians), "steps_a_second": sum(1 / m for m in medians)}


def best(seconds: dict[str, dict[str, float]], *words: str) -> tuple[str, float]:
    """Give the quickest way whose name begins with the words, and its median."""
    medians = {n: told["median"] for n, told in seconds.items() if n.startswith(words)}
    return min(medians.items(), key=lambda pair: pair[1])


def summary(options: Options, seconds: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Give the epochs of the quickest training and of the quickest search of each recipe."""
    steps, batch = PICTURES // options.batch_size, seconds["batch"]["median"]
    name, step = best(seconds, "training")
    training = steps * (step + batch)
    epochs: dict[str, Any] = {"training": {"way": name, "seconds": training}}
    for recipe_name in options.recipes:
        if not any(name.startswith(f"search, {recipe_name}") for name in seconds):
            continue  # left out for time
        name, step = best(seconds, f"search, {recipe_name}")
        epoch = steps * (step + batch)
        epochs[recipe_name] = {"way": name, "seconds": epoch, "of_training": epoch / training}
    return epochs


def show(console: Console, options: Options, content: dict[str, Any]) -> None:
    """Print the result beside the targets."""
    steps, seconds = PICTURES // options.batch_size, content["seconds"]
    table = Table(title=f"EffConv-20 of {options.budget:,.0f}, batches of {options.batch_size}")
    for heading in ("way", "step, ms", "20th to 80th percentile", "epoch, s", "first step, s"):
        table.add_column(heading)
    for name, told in seconds.items():
        median, low, high = (1000 * told[key] for key in ("median", "p20", "p80"))
        first = content["first_step"].get(name)
        table.add_row(
            name,
            f"{median:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{steps * median / 1000:.2f}",
            "" if first is None else f"{first:.1f}",
        )
    console.print(table)
    for name, told in content["epochs"].items():
        ratio = told.get("of_training")
        target = (
            f"target on an H200 {EPOCH_SECONDS:g} s"
            if ratio is None
            else f"{ratio:.2f} times a training epoch, target {RATIO:g}"
        )
        kind = name if ratio is None else f"search, {name}"
        console.print(f"{kind} epoch {told['seconds']:.2f} s ({target}): {told['way']}")
    for name, by_count in content["side_by_side"].items():
        for count, told in by_count.items():
            alone = 1 / seconds[name]["median"]
            console.print(
                f"{count} of {name}: {told['steps_a_second']:.0f} steps/s in all, alone {alone:.0f}"
            )
    if content["left_out"]:
        console.print(f"left out for time: {'; '.join(content['left_out'])}")


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(Options, prog="bench:training"), Console()
    check_device(options.device)
    began = time.perf_counter()
    measured = measure(options, console, began)
    seconds = {name: spread(values) for name, values in measured["all_seconds"].items()}
    epochs = summary(options, seconds)
    by_name = {str(way): way for way in ways(options.device, options.recipes)}
    content = {
        "settings": {k: v for k, v in asdict(options).items() if k != "out"},
        "environment": {"data": data_note("cifar10"), **environment(options.device)},
        "plan": equal_plan(options)[0].sizes,
        "seconds": seconds,
        "epochs": epochs,
        "side_by_side": {},
        **measured,
    }

    def write() -> None:
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_text(options.out, json.dumps(content, indent=1) + "\n")

    write()
    for count, told in itertools.product(options.seeds, epochs.values()):
        name = told["way"]
        if passed(began, options, 4 / 5):
            content["left_out"].append(f"{count} side by side, {name}")
            continue
        found = side_by_side(by_name[name], options, count)
        content["side_by_side"].setdefault(name, {})[count] = found
        write()
    show(console, options, content)


if __name__ == "__main__":
    sys.exit(run_command("bench:training", main))
