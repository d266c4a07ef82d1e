"""The command `effconv probe`: whether kernel sizes matter to a network and a set."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
import tyro
from rich.table import Table

from effconv_core.cli.announce import batches_of
from effconv_core.cli.errors import check_device, run_command
from effconv_core.cli.search_train import Subject, network_of
from effconv_core.cli.specifiers.data import Data, fitting_data, make_data
from effconv_core.config import recipe
from effconv_core.engine.probe import Probe, probe
from effconv_core.io.console import PlainConsole, parsed, prints_aside
from effconv_core.io.terminal import write_output
from effconv_core.plan import in_words
from effconv_core.rng import seeded


@dataclass(frozen=True, kw_only=True)
class ProbeOptions(Subject):
    """Train random plans of one cost for a short while, and compare them.

    Says whether they differ by more than trainings of one plan do.

    Says which layers' sizes go with the loss, and in which direction.

    Nothing is written.
    """

    budget: float | None = None
    """Number of parameters of the plans; by default the network's own."""
    plans: int = 16
    """Random plans that are trained."""
    steps: int = 64
    """Training steps of each."""
    batch_size: int | None = None
    """By default at most 128, and fewer for a small set."""
    seed: int = 0
    """Seed of order, plans and initial values."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """`cpu`, `cuda` or `cuda:1`, for example."""


def probe_command(arguments: Sequence[str]) -> int:
    """Run `effconv probe`; return the exit status."""
    name = "effconv probe"
    return run_command(name, lambda: _run(_parsed(arguments, name)))


def _parsed(arguments: Sequence[str], name: str) -> ProbeOptions:
    return parsed(ProbeOptions, arguments, prog=name, config=(tyro.conf.FlagCreatePairsOff,))


def _run(options: ProbeOptions) -> None:
    check_device(options.device)
    config = replace(recipe("bank"), race_steps=options.steps, seed=options.seed)

    def made(size: int) -> Data:
        own = {"device": options.device, "seed": options.seed, "limit": options.limit}
        return make_data(options.data, batch_size=size, **own)

    console = PlainConsole(quiet=options.json)
    with prints_aside(options.json):
        data, batch_size = fitting_data(made, options.batch_size, config.epochs)
        model = network_of(options, data, options.seed).to(options.device)
        console.print(batches_of(batch_size, data.samples), soft_wrap=True)
        with seeded(options.seed, torch.device(options.device)):
            found = probe(
                model,
                data.train(batch_size),
                validation=data.comparison(batch_size),
                budget=options.budget,
                config=config,
                plans=options.plans,
            )
    if options.json:
        write_output(json.dumps(asdict(found)) + "\n")
        return
    for sentence in sentences(found):
        console.print(sentence, soft_wrap=True)
    console.print(_table(found))


def sentences(found: Probe) -> list[str]:
    """Return what a probe says, its answer first."""
    answer = "matter here" if found.matters else "were not shown to matter here"
    if not found.certain:
        direction = "No single layer's size goes with the loss beyond chance."
    else:
        direction = "Sizes that go with the loss beyond chance: " + ", ".join(
            f"{name} ({'larger' if found.layers[name] < 0 else 'smaller'} is better)"
            for name in found.certain
        )
    return [
        f"Kernel sizes {answer}: after {found.steps} steps {found.plans} random plans of one cost "
        f"differ by {found.spread:.3f} in loss (standard deviation), and {found.repeats} trainings "
        f"of the original sizes by {found.noise:.3f}.",
        f"Loss of the original sizes {found.original_loss:.3f}, of the best random plan "
        f"{found.best_loss:.3f}.",
        f"{direction}." if found.certain else direction,
    ]


def _table(found: Probe) -> Table:
    table = Table(title="size of a layer, and the loss")
    for column in ("layer", "correlation", "best random plan"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for name, correlation in found.layers.items():
        table.add_row(name, f"{correlation:+.2f}", in_words(found.best[name]))
    return table
