"""The commands `effconv search` and `effconv train`: each runs in its own folder."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import tyro
from torch import nn

from effconv_core.cli.announce import SMALLEST_BATCH, fitting_batch
from effconv_core.cli.errors import REFUSED, run_command
from effconv_core.cli.pipeline import check_options, search_and_train, train_alone
from effconv_core.cli.specifiers.data import OWN, Data, make_data, small_where_needed
from effconv_core.cli.specifiers.model import check_by_name, make_model
from effconv_core.config import RECIPES, SearchConfig, recipe_name
from effconv_core.cost.budget import Budget
from effconv_core.cost.macs import Macs
from effconv_core.distributed.failures import OtherRankError, told
from effconv_core.distributed.process_group import Ranks, joined
from effconv_core.engine.by_class import check_loaders
from effconv_core.engine.train import TrainConfig, training_of
from effconv_core.io.console import PlainConsole, parsed, prints_aside
from effconv_core.io.terminal import write_output
from effconv_core.layers.batch_checks import check_targets, explained_pass
from effconv_core.method.searchable import SearchableCNN
from effconv_core.plan import SizePlan
from effconv_core.runs.names import folder_of, name_of
from effconv_core.runs.options import Recipe, RunOptions, SearchOptions, option
from effconv_core.scalars import in_figures
from effconv_core.space.search_space import flat

Options = TypeVar("Options", bound=RunOptions)

# Options that set where a run is stored and how it is reported, but do not affect its outcome.
PLACES = ("runs", "name", "logger", "overwrite", "json")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The network to search or train, and its data."""

    model: tyro.conf.Positional[option(str, metavar="MODEL")]
    """torchvision:NAME, timm:NAME, effconv:NAME, or
    package.module:function, without arguments."""
    data: tyro.conf.Positional[option(str, metavar="DATA")]
    """Set of `effconv data prepare`: folder or http(s); or
    package.module:function of batch_size and seed, which
    returns loaders: train, (validation,) test."""
    num_classes: option(int | None, metavar="INT") = None
    """Classes of a MODEL by name; by default the set's."""
    limit: option(int | None, metavar="INT") = None
    """Most images of each split of a set; by default all."""
    json: option(bool) = False
    """Print the result as one JSON object, nothing else."""


@dataclass(frozen=True, kw_only=True)
class Validated:
    """How a training is followed."""

    val_fraction: option(float | None, metavar="SHARE") = None
    """Share of the training images to hold out and test on."""


@dataclass(frozen=True, kw_only=True)
class Search(SearchOptions, Validated, Subject):
    """Learn the kernel sizes of a CNN under a budget, then train the CNN found.

    The same command resumes a run that was stopped.

    Settings are options too, such as --search.epochs 2, --train.epochs 90 and
    --train.batch-size 64: --help-all has them all.
    """

    budget_counts: option(Literal["parameters", "macs"], metavar="WHAT") = "parameters"
    """`parameters`, or `macs`: multiply-accumulates."""
    at_most: option(bool) = False
    """Let plans cost less than the budget, but never more."""
    search_only: option(bool) = False
    """Do not train; `effconv train --plan` can, later."""


@dataclass(frozen=True, kw_only=True)
class Train(RunOptions, Validated, Subject):
    """Train the CNN of a plan from scratch, or a network with the sizes that it has.

    The same command resumes a run that was stopped.

    Settings are options too, such as --train.epochs 90 and --train.batch-size 64:
    --help-all has them all.
    """

    plan: option(Path | None, metavar="PATH") = None
    """JSON file of the sizes; by default the network's own."""
    recipe: option(Recipe, metavar="NAME") = "bank"
    """`bank`, `paper`, `literal`; sets defaults of --train."""


@dataclass(frozen=True, kw_only=True)
class _ShortSearch(Search):
    __doc__ = Search.__doc__
    search: tyro.conf.Suppress[SearchConfig]
    train: tyro.conf.Suppress[TrainConfig]
    sync_batchnorm: tyro.conf.Suppress[bool] = False


@dataclass(frozen=True, kw_only=True)
class _ShortTrain(Train):
    __doc__ = Train.__doc__
    train: tyro.conf.Suppress[TrainConfig]
    sync_batchnorm: tyro.conf.Suppress[bool] = False


def search_defaults(recipe: str) -> dict[str, Any]:
    """Return the default options of a search."""
    needed = dict.fromkeys(("model", "data"), tyro.MISSING)
    return {**needed, "recipe": recipe, "search": RECIPES[recipe], "train": training_of(recipe)}


def train_defaults(recipe: str) -> dict[str, Any]:
    """Return the default options of a training."""
    needed = dict.fromkeys(("model", "data"), tyro.MISSING)
    return {**needed, "recipe": recipe, "train": training_of(recipe)}


def search_command(arguments: Sequence[str]) -> int:
    """Run `effconv search`; return the exit status."""
    name = "effconv search"
    return run_command(
        name,
        lambda: _run(
            _parse(Search, _ShortSearch, search_defaults, arguments, name),
            partial(_search, words=arguments),
        ),
    )


def train_command(arguments: Sequence[str]) -> int:
    """Run `effconv train`; return the exit status."""
    name = "effconv train"
    return run_command(
        name,
        lambda: _run(
            _parse(Train, _ShortTrain, train_defaults, arguments, name),
            partial(_train, words=arguments),
        ),
    )


def take_recipe(arguments: Sequence[str], default: str = "bank") -> tuple[str, list[str]]:
    """Return the recipe that a command line names, and the command line without it.

    The recipe sets the defaults of the other options, so it is read before them.

    Raises:
        ValueError: if there is no such recipe.
    """
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--recipe", default=default)
    named, rest = chosen.parse_known_args(list(arguments))
    return recipe_name(named.recipe), rest


def _parse(
    kind: type[Options],
    short: type[Options],
    defaults: Callable[[str], dict[str, Any]],
    arguments: Sequence[str],
    prog: str,
) -> Options:
    recipe, arguments = take_recipe(arguments)
    given = defaults(recipe)
    if "--help-all" in arguments:
        arguments = ["--help"]
    elif {"--help", "-h"} & set(arguments):
        kind, arguments = short, ["--help"]
    return parsed(
        kind,
        arguments,
        default=kind(**given),
        prog=prog,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _run(
    options: Search | Train, do: Callable[[Any, PlainConsole, Ranks], tuple[Path, dict[str, Any]]]
) -> int:
    """Execute a run, in several processes under torchrun; return the exit status."""
    check_options(options)
    console, started = PlainConsole(stderr=options.json), time.perf_counter()
    with joined(options.device) as ranks, prints_aside(options.json):
        console.quiet = ranks.rank > 0
        try:
            with told(ranks.group):
                folder, result = do(options, console, ranks)
        except OtherRankError:  # the rank that failed has reported why
            return REFUSED
        leads = ranks.rank == 0
    seconds = time.perf_counter() - started
    console.print(f"{folder / 'report.html'} written after {seconds:.0f} s", soft_wrap=True)
    if options.json and leads:
        write_output(json.dumps({"run": str(folder), **result}) + "\n")
    return 0


def _search(
    options: Search, console: PlainConsole, ranks: Ranks, *, words: Sequence[str]
) -> tuple[Path, dict[str, Any]]:
    here, budget, counter = Path.cwd(), None, None
    with ranks.together():
        data = _images(options, options.batch_size, ranks, words)
        options = _with_fitting_batches(options, data, words)
        model = network_of(options, data, options.seed)
        if options.budget is None:
            options = replace(options, budget=_own_cost(model, options, data))
    if options.budget_counts == "macs":
        counter = Macs(torch.zeros(1, *data.image_shape, device=ranks.device))
    if counter is not None or options.at_most:
        budget = Budget(options.budget, counter, at_most=options.at_most)
    options = _staying(options, here)
    name = partial(_folder_name, options, in_figures(options.budget).replace(",", ""))
    folder = folder_of(options.runs, options.recipe, name)
    settings, training = _settings(options), not options.search_only
    check = partial(_check_loaders, model, options, data, ranks) if training else lambda: None
    result = search_and_train(
        folder,
        settings,
        options,
        model,
        data,
        console=console,
        ranks=ranks,
        budget=budget,
        training=training,
        check=check,
    )
    return folder, result


def _own_cost(model: nn.Module, options: Search, data: Data) -> float:
    """Return what the network's own sizes cost in what the budget counts."""
    searchable = SearchableCNN(model, options.search)
    cost = searchable.cost
    if options.budget_counts == "macs":
        cost = Macs(torch.zeros(1, *data.image_shape))(searchable)
    return float(cost(flat(searchable.original_sizes.values())))


def _train(
    options: Train, console: PlainConsole, ranks: Ranks, *, words: Sequence[str]
) -> tuple[Path, dict[str, Any]]:
    here = Path.cwd()
    with ranks.together():
        plan = None if options.plan is None else SizePlan.load(options.plan)
        data = _images(options, options.train.batch_size, ranks, words)
        options = _with_fitting_batches(options, data, words)
        model = network_of(options, data, options.seed)
    options = _staying(options, here)
    source = "original" if options.plan is None else options.plan.stem
    folder = options.runs / _folder_name(options, source)
    # The sizes affect the outcome, not the file that they are in.
    settings = {**_settings(options), "plan": None if plan is None else plan.sizes}
    check = partial(_check_loaders, model, options, data, ranks)
    given = settings, options, model, plan, data
    result = train_alone(folder, *given, console=console, ranks=ranks, check=check)
    return folder, result


def _staying(options: Options, here: Path) -> Options:
    """Return options whose runs are below `here` also where the user's code has left it."""
    return options if Path.cwd() == here else replace(options, runs=here / options.runs)


def _named(words: Sequence[str]) -> set[str]:
    """Return the options that a command line names."""
    return {word.partition("=")[0].replace("_", "-") for word in words}


def _with_fitting_batches(options: Options, data: Data, words: Sequence[str]) -> Options:
    """Return options whose batch sizes, where the command line has none, fit the set."""
    named, train = _named(words), options.train
    if "--train.batch-size" not in named:
        size = fitting_batch(data.samples, train.epochs, train.batch_size)
        train = replace(train, batch_size=size)
    options = replace(options, train=train)
    if isinstance(options, Search) and "--batch-size" not in named:
        size = fitting_batch(data.samples, options.search.epochs, options.batch_size)
        options = replace(options, batch_size=size)
    return options


def _images(options: Search | Train, batch_size: int, ranks: Ranks, words: Sequence[str]) -> Data:
    def made(batch_size: int) -> Data:
        return make_data(
            options.data,
            batch_size=ranks.share(batch_size, "batch_size"),
            device=ranks.device,
            seed=options.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
            limit=options.limit,
            val_fraction=options.val_fraction,
        )

    option = "--batch-size" if isinstance(options, Search) else "--train.batch-size"
    if option in _named(words):
        return made(batch_size)
    return small_where_needed(made, batch_size, SMALLEST_BATCH * ranks.world_size)


def network_of(options: Subject, data: Data, seed: int) -> nn.Module:
    """Build the network of a command for its data, with initial values from a seed.

    Raises:
        ValueError: if it cannot be made, or does not fit the images or the classes.
    """
    classes = data.num_classes if options.num_classes is None else options.num_classes
    check_by_name(options.model, num_classes=options.num_classes)
    by_name = options.model.partition(":")[0] in ("torchvision", "timm", "effconv")
    if by_name and classes is None:
        raise ValueError(
            f"data {options.data!r} does not tell how many classes model {options.model!r} is to "
            "have; pass --num-classes"
        )
    channels = data.image_shape[0]
    model = make_model(options.model, num_classes=classes, channels=channels, seed=seed)
    _check_fit(model, options, data)
    return model


@torch.no_grad()
def _check_fit(model: nn.Module, options: Subject, data: Data) -> None:
    """Raise for a network that does not take the images or scores too few classes."""
    what, shape = f"model {options.model!r}", (1, *data.image_shape)
    images = torch.zeros(shape) if data.first is None else data.first[0][:1].cpu()
    model.eval()
    try:
        with explained_pass(model, images):
            scores = model(images)
    except RuntimeError as error:
        raise ValueError(
            f"{what} does not take images of shape {shape} ({error}); name another, or prepare the "
            "images as it needs them"
        ) from None
    model.train()
    if not isinstance(scores, torch.Tensor) or scores.shape[:-1] != (1,):
        given = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ValueError(
            f"{what} gives {given} for one image; it is to give (1, classes), a score for each"
        )
    if data.num_classes is not None and scores.shape[1] < data.num_classes:
        raise ValueError(
            f"{what} gives {scores.shape[1]} scores, and the set has {data.num_classes} classes; "
            "name one that tells them all apart"
        )
    if data.first is not None:
        batch, labels = data.first
        check_targets(scores.expand(len(batch), -1), labels)


def _check_loaders(model: nn.Module, options: RunOptions, data: Data, ranks: Ranks) -> None:
    """Raise before a run for what a function's loaders would end it with after its search."""
    if data.first is not None:  # those of sets are known
        size = ranks.share(options.train.batch_size, "batch_size of the training")
        test = data.test()
        check_loaders(model, data.train(size), test, data.val and data.val(size))


def _folder_name(options: Search | Train, *more: str) -> str:
    data = options.data if OWN.fullmatch(options.data) else Path(options.data).name
    return options.name or name_of(data, options.model, *more)


def _settings(options: Search | Train) -> dict[str, Any]:
    given = {name: value for name, value in asdict(options).items() if name not in PLACES}
    # Runs that were begun before there were these options have none of them.
    later = {name for name in ("limit", "val_fraction", "at_most") if not given.get(name)}
    return {name: value for name, value in given.items() if name not in later}
