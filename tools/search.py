"""`hatch run search:NAME`: learn kernel sizes, train the found CNN, and report."""

import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from effconv_core.cli.pipeline import check_options, search_and_train
from effconv_core.cli.search_train import take_recipe
from effconv_core.cli.specifiers.data import Data, one_at_a_time
from effconv_core.distributed.failures import OtherRankError
from effconv_core.distributed.process_group import Ranks, joined
from effconv_core.runs.lock import claim
from effconv_core.runs.names import check_name, folder_of, name_of
from effconv_core.runs.options import SearchOptions
from rich.console import Console

from tools.presets import (
    PAPER_SETS,
    SEQUENCES,
    data_note,
    is_augmented,
    make_batches,
    make_network,
    preset,
)
from tools.support.console import run_and_report

RECIPE_OF = {**dict.fromkeys(PAPER_SETS, "paper"), **dict.fromkeys((*SEQUENCES, "demo"), "bank")}
"""The recipe of each named search, unless it is told another."""


@dataclass(frozen=True, kw_only=True)
class PresetOptions(SearchOptions):
    """Learn the kernel sizes of a CNN under a parameter budget, then train the found CNN.

    `--search-epochs` may be written for `--search.epochs`, and so on.
    """

    model: str
    """`demo` or a name of effconv_models."""
    scale: float = 8.0
    """Width in pixels of the pattern that carries the class in the demo's images."""
    samples: int = 4000
    """Number of images of each split of the demo."""
    limit: int | None = None
    """Most images of each split of another set; by default all."""


def parse(arguments: list[str]) -> tuple[str, PresetOptions]:
    """Read the command line: the data's name, then options; `--search-epochs` is `--search.epochs`.

    The recipe is read before all else, because it sets the defaults of the others.
    """
    data, *rest = arguments or [""]
    if data not in RECIPE_OF:
        raise ValueError(f"data {data!r} is unknown; name one of {', '.join(RECIPE_OF)} first")
    recipe, rest = take_recipe(rest, RECIPE_OF[data])
    rest = [re.sub(r"^--(search|train)-", r"--\1.", argument) for argument in rest]
    defaults = PresetOptions(**vars(preset(data, recipe)), recipe=recipe)
    options = tyro.cli(PresetOptions, default=defaults, args=rest, prog=f"search:{data}")
    if options.name:
        check_name(options.name)
    return data, options


def introduction(data: str, options: PresetOptions) -> str:
    """Return the first line of a search: its recipe and budget, and how to run the other recipe."""
    ours = options.recipe == "bank"
    whose = "the one that measures best here" if ours else "the EffConv paper's"
    other = "paper" if ours else "bank"
    return (
        f"recipe {options.recipe}, {whose}, at {options.budget:,.0f} parameters; for the other, "
        f"hatch run search:{data} --recipe {other}"
    )


def run(
    data: str,
    options: PresetOptions,
    console: Console,
    ranks: Ranks,
    hold: Callable[[Path], AbstractContextManager[Any]] = claim,
) -> Path:
    """Search, train and report; return the run's folder.

    Args:
        data: the data's name.
        options: options of the command line.
        console: where progress is shown.
        ranks: the processes that share the run.
        hold: locks the folder against other processes.

    Raises:
        FileExistsError: if the run is finished, has other settings, or is held by another
            process.
        ValueError: as `search`, `train` or the data do.
    """
    console.print(introduction(data, options), soft_wrap=True)
    batches = partial(
        make_batches,
        data,
        augment=is_augmented(data, options.recipe),
        device=ranks.device,
        seed=options.seed,
        scale=options.scale,
        limit=options.samples if data == "demo" else options.limit,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    with ranks.together():
        train = one_at_a_time(lambda size: batches("train", batch_size=size))
        first = train(ranks.share(options.batch_size, "batch_size"))
        model = make_network(options.model, first, options.seed)
    images = Data(
        train,
        lambda: batches("test", batch_size=-(-500 // ranks.world_size)),
        data_note(data),
        first.image_shape,
        first.num_classes,
        first.samples,
    )
    del first
    words = data, options.model, f"{options.budget:.0f}"
    folder = folder_of(options.runs, options.recipe, lambda w: options.name or name_of(*words, w))
    settings = {"data": data, **asdict(options)}
    for place in ("runs", "name", "logger", "overwrite", *(() if options.limit else ("limit",))):
        del settings[place]
    search_and_train(
        folder, settings, options, model, images, console=console, ranks=ranks, hold=hold
    )
    return folder


def run_in(folder: Path, console: Console, *, arguments: list[str]) -> None:
    """Do a run of a list in its folder, which the worker holds; see `tools.queue.run_list`."""
    data, options = parse([*arguments, "--runs", str(folder.parent), "--name", folder.name])
    alone = Ranks(0, 1, None, options.device)
    run(data, options, console, alone, hold=nullcontext)


def main() -> int:
    """Run the command line; return the exit status."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    name = f"search, rank {os.environ['RANK']}" if several else "search"

    def command(arguments: list[str], console: Console) -> Path:
        data, options = parse(arguments)
        check_options(options)
        with joined(options.device) as ranks:
            console.quiet = ranks.rank > 0
            try:
                return run(data, options, console, ranks)
            except OtherRankError:  # the rank that failed has reported why
                sys.exit(2)

    return run_and_report(name, command)


if __name__ == "__main__":
    sys.exit(main())
