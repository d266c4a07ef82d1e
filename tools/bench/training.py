"""`hatch run bench:training`: time per training and search step for each way of running it.

The network is EffConv-20 of the budget: sizes as equal as it allows. The ways take their steps
alternately on the same batches of real images, so that other load affects all of them; the time
of the batch itself, with augmentation, is reported separately, as are the compilation time of
`torch.compile` and its number of graphs.
"""

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, SearchConfig, SizePlan, apply_plan
from effconv_core.engine.nonfinite import finite_soon
from effconv_data import load
from effconv_models import create_model
from rich.console import Console
from torch import Tensor, nn
from torch._dynamo.utils import counters

from tools.bench.core import BenchOptions, interleave, quantiles, result, run_bench, write
from tools.bench.steps import equal_plan, held_at
from tools.presets import data_note
from tools.support.console import show

EPOCH_SECONDS, RATIO = 2.0, 1.2
"""Targets on an H200: a training epoch, and a search epoch over it."""
PICTURES = 50_000
COUNTED_ANYWAY = 5  # rounds
CUDA = torch.cuda.is_available()


@dataclass(frozen=True)
class Way:
    """How a step is run."""

    recipe: str = ""
    """Recipe of the search step; empty trains the CNN of the same sizes."""
    bfloat16: bool = False
    shapes: str = "exact"
    """Shapes of a search's kernels; exact ones are constant only if nothing is drawn."""
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
    """Yield the ways to compare: first what is soon begun, then what matters most."""
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


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(BenchOptions):
    """Time steps of trainings and searches on CIFAR-10 in each way to run them."""

    model: str = "cifar_resnet20"
    """A name of effconv_models."""
    budget: float = 0.66e6
    """Parameters of the network, as in the paper's timings of EffConv-20."""
    recipes: tuple[str, ...] = ("default", "paper")
    """Of the searches."""
    batch_size: int = 128
    rounds: int = 10
    """Timed turns of each way."""
    steps: int = 20 if CUDA else 1
    """Steps per turn, followed by a wait for the GPU."""
    seeds: tuple[int, ...] = (2, 4) if CUDA else ()
    """Numbers of processes, each with its own seed, that train and search side by side on the
    device in the fastest ways; empty skips this. They time-share a GPU, or run concurrently with
    NVIDIA's MPS daemon."""
    minutes: float | None = None
    """Ways not started after half of this are skipped, except the first; rounds after the first
    five are skipped after two thirds, and processes side by side after four fifths."""

    LEAST: ClassVar = {**BenchOptions.LEAST, "rounds": 2}


def plan_of(options: TrainingOptions) -> tuple[SizePlan, float]:
    """Return the plan of the budget with sizes as equal as can be, and the soft size of all."""
    return equal_plan(create_model(options.model), options.budget)


def way_config(way: Way, soft_size: float) -> SearchConfig:
    """Return a way's recipe with soft sizes that start at one and stay there."""
    return held_at(
        soft_size,
        way.recipe,
        precision="bfloat16" if way.bfloat16 else "float32",
        shapes=way.shapes,
        compile=bool(way.compile) and way.shapes == "padded",
    )


class Stepped:
    """A network and its optimizer, run in one way."""

    def __init__(self, way: Way, options: TrainingOptions) -> None:
        self.way = way
        plan, soft_size = plan_of(options)
        generator = torch.Generator().manual_seed(0)
        model = create_model(options.model, generator=generator)
        self.penalty: Callable[[], Tensor | float] = lambda: 0.0
        if way.recipe:
            model = SearchableCNN(model, way_config(way, soft_size))
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

    def turn(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """Take a step on each of some batches."""
        for batch in batches:
            self.step(*batch)


def compile_network(searchable: SearchableCNN, **how: Any) -> None:
    """Compile the CNN of a search on exact kernels, with a graph for each tuple of sizes.

    The kernels are inputs of the graph. If they were attributes of the layers, PyTorch would expect
    them at the addresses of the first step, and record a CUDA graph again whenever they move.

    Args:
        searchable: its `model` is run by the graphs from now on.
        how: arguments of `torch.compile`.
    """
    run = searchable.model.forward

    def on_kernels(kernels: list[Tensor], images: Tensor) -> Tensor:
        with searchable.kernels_of(kernels):
            return run(images)

    compiled = torch.compile(on_kernels, **how)

    def forward(images: Tensor) -> Tensor:
        return compiled([conv.kernel for conv in searchable.convs], images)

    searchable.model.forward = forward


def endless(options: TrainingOptions) -> Iterator[tuple[Tensor, Tensor]]:
    """Return batches without an end."""
    loader = load("cifar10", batch_size=options.batch_size, device=options.device)
    return itertools.chain.from_iterable(itertools.repeat(loader))


def prepared(way: Way, options: TrainingOptions, batches: list) -> tuple[Stepped, float, int]:
    """Return a way after a first step, the seconds of that, and how many graphs it compiled.

    Further steps follow it: a CUDA graph is recorded in the second.
    """
    before = counters["stats"]["unique_graphs"]
    stepped = Stepped(way, options)
    first = interleave({"": lambda: stepped.turn(batches[:1])}, 1, device=options.device)
    for _ in range(2):
        stepped.turn(batches)
    return stepped, first[""][0], counters["stats"]["unique_graphs"] - before


def passed(began: float, options: TrainingOptions, share: float) -> bool:
    """Return whether a share of the minutes is over."""
    if options.minutes is None:
        return False
    return time.perf_counter() - began > share * 60 * options.minutes


def time_ways(options: TrainingOptions, console: Console, began: float) -> dict[str, Any]:
    """Time all ways alternately.

    Args:
        options: of the command line.
        console: reports each way that is ready.
        began: start time of the minutes.

    Returns:
        Seconds of each counted turn by way, and those of the batches as `batch`; the seconds of
        each way's first step; how many graphs it compiled; and the ways left out for time.
    """
    given = endless(options)
    batches = list(itertools.islice(given, options.steps))
    steppeds, first, graphs, left_out = {}, {}, {}, []
    for way in ways(options.device, options.recipes):
        if steppeds and passed(began, options, 1 / 2):
            left_out.append(str(way))
            continue
        name = str(way)
        steppeds[name], first[name], graphs[name] = prepared(way, options, batches)
        console.print(f"{name}: {first[name]:.1f} s to the first step", highlight=False)

    def fetch() -> None:
        batches[:] = itertools.islice(given, options.steps)

    of_batches: list[float] = []
    times = interleave(
        {name: partial(stepped.turn, batches) for name, stepped in steppeds.items()},
        options.rounds,
        device=options.device,
        before=lambda: of_batches.extend(interleave({"": fetch}, 1, device=options.device)[""]),
        until=lambda counted: counted >= COUNTED_ANYWAY and passed(began, options, 2 / 3),
    )
    seconds = {
        name: [turn / options.steps for turn in own]
        for name, own in {"batch": of_batches, **times}.items()
    }
    return {"all_seconds": seconds, "first_step": first, "graphs": graphs, "left_out": left_out}


def beside(way: Way, options: TrainingOptions, barrier: Any, results: Any) -> None:
    """Take a process's steps beside others, and put what each took into the results."""
    torch.set_num_threads(options.threads)
    batches = list(itertools.islice(endless(options), options.steps))
    stepped = prepared(way, options, batches)[0]
    barrier.wait()
    sides = {"": partial(stepped.turn, batches)}
    times = interleave(sides, options.rounds, device=options.device)[""]
    results.put([turn / options.steps for turn in times])


def side_by_side(way: Way, options: TrainingOptions, processes: int) -> dict[str, float]:
    """Return a step's median seconds in several processes, and all steps of a second."""
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
    """Return the quickest way whose name begins with the words, and its median."""
    medians = {n: told["median"] for n, told in seconds.items() if n.startswith(words)}
    return min(medians.items(), key=lambda pair: pair[1])


def epochs_of(options: TrainingOptions, seconds: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return the epochs of the quickest training and of the quickest search of each recipe."""
    steps, batch = PICTURES // options.batch_size, seconds["batch"]["median"]
    name, step = best(seconds, "training")
    training = steps * (step + batch)
    epochs: dict[str, Any] = {"training": {"way": name, "seconds": training}}
    for recipe_name in options.recipes:
        if not any(name.startswith(f"search, {recipe_name}") for name in seconds):
            continue  # skipped for time
        name, step = best(seconds, f"search, {recipe_name}")
        epoch = steps * (step + batch)
        epochs[recipe_name] = {"way": name, "seconds": epoch, "of_training": epoch / training}
    return epochs


def show_training(console: Console, options: TrainingOptions, content: dict[str, Any]) -> None:
    """Print the result beside the targets."""
    steps, seconds = PICTURES // options.batch_size, content["seconds"]
    rows = []
    for name, told in seconds.items():
        median, low, high = (1000 * told[key] for key in ("median", "p20", "p80"))
        first = content["first_step"].get(name)
        epoch, started = f"{steps * median / 1000:.2f}", "" if first is None else f"{first:.1f}"
        rows.append((name, f"{median:.2f}", f"{low:.2f} to {high:.2f}", epoch, started))
    show(
        console,
        f"EffConv-20 of {options.budget:,.0f}, batches of {options.batch_size}",
        ("way", "step, ms", "20th to 80th percentile", "epoch, s", "first step, s"),
        rows,
    )
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
                f"{count} of {name}: {told['steps_a_second']:.0f} steps/s in all, one {alone:.0f}"
            )
    if content["left_out"]:
        console.print(f"left out for time: {'; '.join(content['left_out'])}")


def run(options: TrainingOptions, console: Console) -> None:
    """Time all ways, then the quickest in several processes, and write the result after each."""
    began = time.perf_counter()
    timed = time_ways(options, console, began)
    seconds = {name: quantiles(values) for name, values in timed["all_seconds"].items()}
    epochs = epochs_of(options, seconds)
    by_name = {str(way): way for way in ways(options.device, options.recipes)}
    content = result(
        options,
        data_note("cifar10"),
        plan=plan_of(options)[0].sizes,
        seconds=seconds,
        epochs=epochs,
        side_by_side={},
        **timed,
    )
    write(content, options.out, console)
    for count, told in itertools.product(options.seeds, epochs.values()):
        name = told["way"]
        if passed(began, options, 4 / 5):
            content["left_out"].append(f"{count} side by side, {name}")
            continue
        found = side_by_side(by_name[name], options, count)
        content["side_by_side"].setdefault(name, {})[count] = found
        write(content, options.out, console)
    show_training(console, options, content)


if __name__ == "__main__":
    run_bench("bench:training", TrainingOptions, run)
