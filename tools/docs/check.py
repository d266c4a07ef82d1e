"""`hatch run reproduce:check`: whether the documents say what the raw results say.

Pages that are made of raw results must be what these give; in those written by hand whatever states
figures must link to raw results; a command that is named must exist, here or in the commit that is
named with it. Without `--check` the pages are made again, as `hatch run reproduce:report` does with
its own.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from effconv_core.cli.errors import run_command
from effconv_core.figures import save_figure
from effconv_core.io.atomic import write_text

from tools.bench import cost_page, efficiency_page
from tools.docs import picture
from tools.docs.commands import commands_without_code
from tools.docs.sections import without_results
from tools.faults import page as faults_page
from tools.methods import page as methods_page
from tools.networks import page as networks_page
from tools.reproduce import multi_resolution_page as mixtures_page
from tools.reproduce import page as results_page
from tools.studies import proving_page
from tools.versus import page as versus_page

Name = Literal[
    "results",
    "multi-resolution",
    "cost",
    "efficiency",
    "faults",
    "methods",
    "networks",
    "proving-ground",
    "versus",
]
MADE: dict[Name, tuple[Path, Callable[[], str]]] = {
    "results": (results_page.PAGE, lambda: results_page.results_page()[0]),
    "multi-resolution": (mixtures_page.PAGE, mixtures_page.multi_resolution_page),
    "cost": (cost_page.PAGE, cost_page.cost_page),
    "efficiency": (efficiency_page.PAGE, efficiency_page.efficiency_page),
    "faults": (faults_page.PAGE, faults_page.faults_page),
    "methods": (methods_page.PAGE, methods_page.methods_page),
    "networks": (networks_page.PAGE, networks_page.networks_page),
    "proving-ground": (proving_page.PAGE, proving_page.proving_page),
    "versus": (versus_page.PAGE, versus_page.versus_page),
}
"""The pages that are made only from raw results, and what makes each."""


@dataclass(frozen=True)
class CheckOptions:
    """Make pages of the raw results, or check all documents against them."""

    pages: tyro.conf.Positional[tuple[Name, ...]] = ()
    """Which pages; all by default."""
    check: bool = False
    """Write nothing, and end with status 1 where a page is not what the results give. If no page is
    named, the documents that are written by hand are checked too."""


def documents() -> list[Path]:
    """Return the documents whose figures must have raw results; changelogs tell of the past."""
    kinds = (Path(kind) for kind in ("packages", "examples"))
    return [
        Path("README.md"),
        *sorted(Path("docs").rglob("*.md")),
        *sorted(Path("results").rglob("README.md")),
        *sorted(path for kind in kinds for path in kind.glob("*/README.md")),
    ]


def made_otherwise(names: tuple[Name, ...] = tuple(MADE)) -> Iterator[str]:
    """Return a sentence for each page that is not what its results give."""
    for name in names:
        path, make = MADE[name]
        if path.read_text(encoding="utf-8") != make():
            yield (f"{path} is not what its results give; run `python -m tools.docs.check {name}`")
    if "results" in names:
        for path in results_page.missing_pictures():
            yield f"{path} is missing; run `hatch run reproduce:report`"


def unfounded() -> Iterator[str]:
    """Return a sentence for each section without results and for each command without code."""
    for document in documents():
        for heading in without_results(document):
            yield (
                f"{document}, section {heading!r}, states figures and links to no file of raw "
                "results that exists; link to it, or take the figures out"
            )
        for command in commands_without_code(document):
            yield (
                f"{document} names `hatch run {command}`, which does not exist; name one, or write "
                "'of commit `...`' behind it, with a commit that has it"
            )


def unseen() -> Iterator[str]:
    """Return a sentence for each document that does not show the picture of the present rows."""
    path = picture.front_picture()
    if not path.exists():
        yield f"{path} is missing; run `python -m tools.docs.check`"
    for document in (Path("README.md"), Path("docs/index.md")):
        if path.name not in document.read_text(encoding="utf-8"):
            yield f"{document} does not show {path}, the picture of the present rows; name it there"


def main() -> int:
    """Run the command line; the exit status is 1 where a document is wrong."""
    options = tyro.cli(CheckOptions, prog="docs.check")
    names = options.pages or tuple(MADE)
    if not options.check:
        for name in names:
            path, make = MADE[name]
            write_text(path, make())
        if "results" in names:
            results_page.draw_pictures()
        if not options.pages:
            save_figure(picture.draw_front_picture(), picture.front_picture())
        return 0
    problems = [*made_otherwise(names), *([] if options.pages else [*unfounded(), *unseen()])]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(run_command("docs.check", main))
