"""The command `effconv frontier`: plans of many costs after one search."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.table import Table

from effconv_core.cli.announce import batches_of
from effconv_core.cli.errors import check_device, check_output, run_command
from effconv_core.cli.search_train import Subject, network_of
from effconv_core.cli.specifiers.counter import counter_of
from effconv_core.cli.specifiers.data import Data, fitting_data, make_data
from effconv_core.config import recipe
from effconv_core.engine.frontier import Frontier, FrontierPoint, frontier
from effconv_core.engine.resume import restored
from effconv_core.io.atomic import remove_file
from effconv_core.io.console import PlainConsole, parsed, prints_aside
from effconv_core.io.terminal import write_output
from effconv_core.plan import in_words
from effconv_core.rng import seeded

SAME = ("model", "data", "limit", "batch_size", "seed")
"""Options in which a command that resumes another has to agree with it."""


@dataclass(frozen=True, kw_only=True)
class FrontierOptions(Subject):
    """Find plans of many costs after one search, beside the network's own sizes.

    The same command resumes what was stopped; `effconv plan at` reads the file.
    """

    state: Path
    """The search's state, such as runs/NAME/search.safetensors."""
    out: Path
    """JSON file of the frontier."""
    draw: Path | None = None
    """Figure of it: a .png or .svg file."""
    counts: Literal["parameters", "macs", "latency"] = "parameters"
    """`parameters`; `macs`: multiply-accumulates; or `latency`: time of one sample on DEVICE."""
    latency_table: Path | None = None
    """JSON file of the times; read if it exists."""
    batch_size: int | None = None
    """By default at most 128, and fewer for a small set."""
    seed: int = 0
    """Seed of order and initial values."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """`cpu`, `cuda` or `cuda:1`, for example."""
    overwrite: bool = False
    """Replace the files if they exist."""


def frontier_command(arguments: Sequence[str]) -> int:
    """Run `effconv frontier`; return the exit status."""
    name = "effconv frontier"
    config = (tyro.conf.FlagCreatePairsOff,)
    return run_command(
        name, lambda: _run(parsed(FrontierOptions, arguments, prog=name, config=config))
    )


def _run(options: FrontierOptions) -> None:
    check_device(options.device)
    # Also after an os.chdir of the user's own code.
    paths = {name: getattr(options, name) for name in ("out", "draw", "state", "latency_table")}
    given = {name: path.absolute() for name, path in paths.items() if path is not None}
    options, out = replace(options, **given), options.out
    for path in (options.out, options.draw):
        if path is not None:
            check_output(path, options.overwrite)
    if len({path.resolve() for path in given.values()}) < len(given):
        raise ValueError(
            "--out, --draw, --state and --latency-table name one file twice, and what is written "
            "last would be all that is left; pass a name for each"
        )
    if (options.counts == "latency") != (options.latency_table is not None):
        raise ValueError(
            f"--counts is {options.counts}, and --latency-table goes with latency; pass both"
        )
    draw = None
    if options.draw is not None:
        # Imported here, so that tables need no matplotlib, and before the work.
        from effconv_core import figures

        draw = figures.draw_frontier
        figures.check_format(options.draw)

    def made(size: int) -> Data:
        own = {"device": options.device, "seed": options.seed, "limit": options.limit}
        return make_data(options.data, batch_size=size, **own)

    console = PlainConsole(quiet=options.json)
    with prints_aside(options.json):
        data, batch_size = fitting_data(made, options.batch_size, recipe("bank").epochs)
        options = replace(options, batch_size=batch_size)
        model = network_of(options, data, options.seed).to(options.device)
        searchable = restored(model, options.state)
        example = torch.zeros(1, *data.image_shape, device=options.device)
        counter = counter_of(options.counts, example, options.latency_table)
        console.print(batches_of(batch_size, data.samples), soft_wrap=True)
        # Costs that are done; deleted when the whole is written.
        progress = options.out.with_name(options.out.name + ".progress.json")
        with seeded(options.seed, torch.device(options.device)):
            found = frontier(
                searchable,
                data.train(batch_size),
                validation=data.comparison(batch_size),
                counter=counter,
                on_amount=lambda number, of: console.print(f"cost {number} of {of}"),
                checkpoint=progress,
                settings={name: getattr(options, name) for name in SAME},
            )
    found.save(options.out)
    remove_file(progress)
    if draw is not None:
        figures.save_figure(draw(found), options.draw)
    if options.json:
        write_output(found.to_json())
        return
    console.print(table(found))
    console.print(
        f"Losses are after {found.steps} steps on batches held out, and comparable with each other "
        f"only; all of it took {found.spent:,} steps. Wrote {out}.",
        soft_wrap=True,
    )


def table(found: Frontier) -> Table:
    """Return a table of the points and the original sizes, by cost."""
    made = Table(title="plans of many costs")
    for column in (found.counts, "loss", "sizes", ""):
        made.add_column(column, justify="left" if column in ("sizes", "") else "right")

    def add(point: FrontierPoint, note: str) -> None:
        sizes = " ".join(map(in_words, point.sizes.values()))
        made.add_row(f"{point.cost:,}", f"{point.loss:.3f}", sizes, note)

    rows = [(p.cost, p.loss, p, "knee" if p == found.knee else "") for p in found.points]
    rows.append((found.original.cost, found.original.loss, found.original, "the network's own"))
    for _, _, point, note in sorted(rows, key=lambda row: row[:2]):
        add(point, note)
    return made
