"""`hatch run search:NAME`: learn kernel sizes, then train the CNN that was found, and report."""

import argparse
import re
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from effconv_core import RECIPES, SearchableCNN, SearchConfig, SizePlan, apply_plan, save, search
from effconv_data import Batches
from rich.console import Console
from torch import nn

from tools.claim import claim
from tools.command import run_command
from tools.meter import progress_bar, step_meter
from tools.presets import data_note, make_batches, make_network, preset
from tools.report import adjustment_sentence, draw_sizes, layer_table, write_report
from tools.run_folder import Metrics, check_run, open_run, write_result
from tools.train import TrainConfig, evaluate, train

DATA = ("cifar10", "mnist", "demo")


@dataclass(frozen=True)
class Options:
    """Learn the kernel sizes of a CNN under a parameter budget, then train the CNN found.

    `--search-epochs` may be written for `--search.epochs`, and so on.
    """

    model: str
    """`demo` or a name of effconv_models."""
    budget: float
    """Wanted number of parameters of the found CNN."""
    search: SearchConfig
    train: TrainConfig
    batch_size: int
    """Of the search."""
    recipe: str = "default"
    """`default`, or `paper` for the paper's search and training; sets the defaults of the rest."""
    seed: int = 0
    """Of data order, augmentation and the networks' initial values; the search has its own."""
    scale: float = 8.0
    """Width in pixels of the pattern that carries the class in the demo's images."""
    samples: int = 4000
    """Images of each split of the demo."""
    baseline: bool = False
    """Train the network with its original sizes alike, for comparison."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """`cpu`, `cuda` or one of several, such as `cuda:1`."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    name: str = ""
    """Name of the run's folder; made from data, model and budget when empty."""
    overwrite: bool = False
    """Delete a run of this name and start again."""


def parse(arguments: list[str]) -> tuple[str, Options]:
    """Read the command line: the data's name, then options; `--search-epochs` is `--search.epochs`.

    The recipe is read first, because it sets the defaults of the others.
    """
    data, *rest = arguments or [""]
    if data not in DATA:
        raise ValueError(f"data {data!r} is unknown; name one of {', '.join(DATA)} first")
    rest = [re.sub(r"^--(search|train)-", r"--\1.", argument) for argument in rest]
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--recipe", default="default")
    recipe = chosen.parse_known_args(rest)[0].recipe
    if recipe not in RECIPES:
        raise ValueError(f"recipe {recipe!r} does not exist; pass one of {', '.join(RECIPES)}")
    start = preset(data, recipe)
    defaults = Options(
        start.model, start.budget, start.search, start.train, start.batch_size, recipe
    )
    options = tyro.cli(Options, default=defaults, args=rest, prog=f"search:{data}")
    return data, options


def run(
    data: str,
    options: Options,
    console: Console,
    hold: Callable[[Path], AbstractContextManager[Any]] = claim,
) -> Path:
    """Search, train and report; give the run's folder.

    Args:
        data: the data's name.
        options: of the command line.
        console: where the run is shown.
        hold: keeps other processes out of the folder.

    Raises:
        FileExistsError: if the run is finished, was made with other settings, or is at work in
            another process.
        ValueError: for what `search`, `train` or the data refuse.
    """
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device is {options.device!r}, but this torch sees no GPU; pass --device cpu"
        )

    search_batches = make(data, options, "train", options.batch_size)
    model = make_network(options.model, search_batches, options.seed)
    model = model.to(options.device, memory_format=torch.channels_last)
    # Refuses a model or a budget that cannot be searched before the run leaves a trace.
    SearchableCNN(model, options.search).plan(options.budget)

    name = options.name or f"{data}-{options.model}-{options.budget:.0f}-{options.recipe}"
    folder = options.runs / name
    settings = {"data": data, **asdict(options)}
    for place in ("runs", "name", "overwrite"):
        del settings[place]
    check_run(folder, settings, overwrite=options.overwrite)
    with hold(folder):
        if open_run(folder, settings, data_note(data), overwrite=options.overwrite):
            console.print(f"going on with the interrupted run {folder}")
        _do(folder, data, options, model, search_batches, console)
    return folder


def run_in(folder: Path, console: Console, *, arguments: list[str]) -> None:
    """Do a run of a list in its folder, which the worker holds; see `tools.run_list`."""
    data, options = parse([*arguments, "--runs", str(folder.parent), "--name", folder.name])
    run(data, options, console, hold=nullcontext)


def make(data: str, options: Options, split: str, batch_size: int) -> Batches:
    """Give a split of the data."""
    return make_batches(
        data,
        split,
        batch_size=batch_size,
        device=options.device,
        seed=options.seed,
        scale=options.scale,
        samples=options.samples,
    )


def _do(
    folder: Path,
    data: str,
    options: Options,
    model: nn.Module,
    search_batches: Batches,
    console: Console,
) -> None:
    """Do what is left of a run."""
    metrics = Metrics(folder)
    with progress_bar(console) as progress:
        plan = search(
            model,
            search_batches,
            budget=options.budget,
            config=options.search,
            checkpoint=folder / "search.safetensors",
            on_step=step_meter(
                progress,
                metrics,
                "search",
                epochs=options.search.epochs,
                steps_per_epoch=len(search_batches),
                budget=options.budget,
            ),
        )
    plan.save(folder / "plan.json")
    console.print(layer_table(model, plan))
    console.print(
        f"plan {plan.cost:,} parameters, budget {options.budget:,.0f}. {adjustment_sentence(plan)}"
    )
    draw_sizes(folder / "sizes.png", plan, metrics)
    del search_batches

    train_batches = make(data, options, "train", options.train.batch_size)
    test_batches = make(data, options, "test", 500)

    def trained(phase: str, cnn: nn.Module) -> float:
        with progress_bar(console) as progress:
            meter = step_meter(
                progress,
                metrics,
                phase,
                epochs=options.train.epochs,
                steps_per_epoch=len(train_batches),
            )
            checkpoint = folder / f"{phase}.safetensors"
            train(cnn, train_batches, options.train, checkpoint=checkpoint, on_step=meter)
        return evaluate(cnn, test_batches)

    generator = torch.Generator().manual_seed(options.seed)
    cnn = apply_plan(model, plan, generator=generator).to(memory_format=torch.channels_last)
    results = {"accuracy": trained("train", cnn)}
    console.print(f"learned sizes: test accuracy {results['accuracy']:.2%}")
    save(cnn, plan, folder / "cnn.safetensors")
    if options.baseline:
        # The same start for the layers that are searched, in place of the model's own.
        original = original_plan(model, plan)
        generator = torch.Generator().manual_seed(options.seed)
        baseline = apply_plan(model, original, generator=generator)
        baseline = baseline.to(memory_format=torch.channels_last)
        results["baseline_parameters"] = sum(p.numel() for p in baseline.parameters())
        results["baseline_accuracy"] = trained("baseline", baseline)
        console.print(f"original sizes: test accuracy {results['baseline_accuracy']:.2%}")
    metrics.close()
    write_report(folder, model, plan, results, metrics)
    found = {"sizes": plan.sizes, "parameters": plan.cost, "budget": options.budget}
    write_result(folder, {**found, **results})


def original_plan(model: nn.Module, plan: SizePlan) -> dict[str, int]:
    """Give the sizes that the searched layers have in the network as it came."""
    modules = dict(model.named_modules())
    return {name: modules[name].kernel_size[0] for name in plan}


def main() -> None:
    """Run the command line."""
    console = Console()
    started = time.perf_counter()
    # Torch says so once for every even size: true, and no concern of who runs a search.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    data, options = parse(sys.argv[1:])
    folder = run(data, options, console)
    console.print(f"{folder / 'report.md'} written after {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    sys.exit(run_command("search", main))
