"""`hatch run search:NAME`: learn kernel sizes, then train the CNN that was found, and report."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from effconv_core import RECIPES, SearchableCNN, SearchConfig, SizePlan, apply_plan, save, search
from effconv_core.report import write_report as write_html
from effconv_data import Batches
from rich.console import Console
from torch import nn

from tools.claim import claim
from tools.command import check_device, run_and_report
from tools.meter import progress_bar, step_meter
from tools.presets import data_note, make_batches, make_network, preset
from tools.ranks import OtherRankError, Ranks, joined
from tools.report import adjustment_sentence, draw_sizes, layer_table, write_report
from tools.run_folder import Metrics, check_run, describe, open_run, write_result
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
    """Of the search; of all ranks together, as that of the training is."""
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
    sync_batchnorm: bool = False
    """Let batch normalisation take the statistics of all ranks' images together; GPUs alone."""
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
    ranks: Ranks,
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
    batches = partial(
        make_batches,
        data,
        device=ranks.device,
        seed=options.seed,
        scale=options.scale,
        limit=options.samples if data == "demo" else None,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    search_batch = ranks.share(options.batch_size, "batch_size")
    ranks.share(options.train.batch_size, "batch_size of the training")
    search_batches = batches("train", batch_size=search_batch)
    model = make_network(options.model, search_batches, options.seed)
    model = model.to(ranks.device, memory_format=torch.channels_last)
    if options.sync_batchnorm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model, ranks.group)
    # Refuses a model or a budget that cannot be searched before the run leaves a trace.
    SearchableCNN(model, options.search).plan(options.budget)

    name = options.name or f"{data}-{options.model}-{options.budget:.0f}-{options.recipe}"
    folder = options.runs / name
    settings = {"data": data, **asdict(options)}
    for place in ("runs", "name", "overwrite"):
        del settings[place]
    network, note = describe(model), data_note(data)
    ranks.on_first(partial(check_run, folder, settings, overwrite=options.overwrite))
    with ExitStack() as held:

        def begin() -> bool:
            held.enter_context(hold(folder))
            return open_run(folder, settings, note, network, overwrite=options.overwrite)

        if ranks.on_first(begin):
            console.print(f"going on with the interrupted run {folder}")
        _do(folder, options, model, search_batches, batches, console, ranks)
    return folder


def run_in(folder: Path, console: Console, *, arguments: list[str]) -> None:
    """Do a run of a list in its folder, which the worker holds; see `tools.run_list`."""
    data, options = parse([*arguments, "--runs", str(folder.parent), "--name", folder.name])
    alone = Ranks(0, 1, None, options.device)
    run(data, options, console, alone, hold=nullcontext)


def _do(
    folder: Path,
    options: Options,
    model: nn.Module,
    search_batches: Batches,
    batches: Callable[..., Batches],
    console: Console,
    ranks: Ranks,
) -> None:
    """Do what is left of a run."""
    metrics = Metrics(folder) if ranks.rank == 0 else None
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
                group=ranks.group,
            ),
            group=ranks.group,
        )
    console.print(layer_table(model, plan))
    console.print(
        f"plan {plan.cost:,} parameters, budget {options.budget:,.0f}. {adjustment_sentence(plan)}"
    )
    if metrics is not None:
        plan.save(folder / "plan.json")
        draw_sizes(folder / "sizes.png", plan, metrics)
    del search_batches

    train_batch = ranks.share(options.train.batch_size, "batch_size of the training")
    train_batches = batches("train", batch_size=train_batch)
    test_batches = batches("test", batch_size=-(-500 // ranks.world_size))

    def outcome(phase: str, cnn: nn.Module) -> dict[str, float]:
        with progress_bar(console) as progress:
            meter = step_meter(
                progress,
                metrics,
                phase,
                epochs=options.train.epochs,
                steps_per_epoch=len(train_batches),
                group=ranks.group,
            )
            checkpoint = folder / f"{phase}.safetensors"
            train(
                cnn,
                train_batches,
                options.train,
                checkpoint=checkpoint,
                on_step=meter,
                group=ranks.group,
            )
        accuracy = evaluate(cnn, test_batches, ranks.group)
        sizes = {"train": "learned", "baseline": "original"}[phase]
        console.print(f"{sizes} sizes: test accuracy {accuracy:.2%}")
        parameters = sum(parameter.numel() for parameter in cnn.parameters())
        return {"parameters": parameters, "test_accuracy": accuracy}

    generator = torch.Generator().manual_seed(options.seed)
    cnn = apply_plan(model, plan, generator=generator).to(memory_format=torch.channels_last)
    networks = {"learned": outcome("train", cnn)}
    if metrics is not None:
        save(cnn, plan, folder / "cnn.safetensors")
    if options.baseline:
        # The same start for the layers that are searched, in place of the model's own.
        original = original_plan(model, plan)
        generator = torch.Generator().manual_seed(options.seed)
        baseline = apply_plan(model, original, generator=generator)
        baseline = baseline.to(memory_format=torch.channels_last)
        networks["original"] = outcome("baseline", baseline)
    if metrics is not None:
        metrics.close()
        write_report(folder, model, plan, networks, metrics)
        found = {"sizes": plan.sizes, "parameters": plan.cost, "budget": options.budget}
        accuracy = networks["learned"]["test_accuracy"]
        write_result(folder, {**found, "accuracy": accuracy, "networks": networks})
        write_html([folder], folder / "report.html")


def original_plan(model: nn.Module, plan: SizePlan) -> dict[str, int]:
    """Give the sizes that the searched layers have in the network as it came."""
    modules = dict(model.named_modules())
    return {name: modules[name].kernel_size[0] for name in plan}


def check_options(options: Options) -> None:
    """Refuse a device that is not there, and what it cannot do."""
    check_device(options.device)
    if options.sync_batchnorm and not options.device.startswith("cuda"):
        raise ValueError(
            f"sync_batchnorm is asked for on device {options.device!r}, and PyTorch's "
            "SyncBatchNorm runs on GPUs alone; leave it out"
        )


def main() -> int:
    """Run the command line; give the exit status."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    name = f"search, rank {os.environ['RANK']}" if several else "search"

    def command(arguments: list[str], console: Console) -> Path:
        data, options = parse(arguments)
        check_options(options)
        with joined(options.device) as ranks:
            console.quiet = ranks.rank > 0
            try:
                return run(data, options, console, ranks)
            except OtherRankError:  # which has said why
                sys.exit(2)

    return run_and_report(name, command)


if __name__ == "__main__":
    sys.exit(main())
