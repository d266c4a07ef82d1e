"""`hatch run bench:verdict`: how often the verdict at the end of a search is right.

Where every plan was trained to the end, the searches of `bench:score` are compared with the truth.
Verdicts are those of the present rule, on the pairs of trainings that a row has, and for rows of
versions before 0.9.0, whose pairs were trained after the choice, of the rule of 0.8.1.
Where there is nothing to find no truth is needed: the labels are drawn at random, all plans are one
function, or the data are 240 photographs. These searches are stored in
`results/verdict/nothing.jsonl`, one row each, and not repeated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from effconv_core import recipe, search
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment
from effconv_data import load
from torch import Tensor
from torch.nn import functional as F

from tools.presets import as_they_are
from tools.studies.exhaustive import FOLDER
from tools.studies.score import truth
from tools.studies.small_spaces import SPACES, Space
from tools.support.console import show
from tools.support.rows import read_rows, run_grid
from tools.support.stats import noise_floor
from tools.support.verdicts import verdict_now

PHOTOGRAPHS = replace(SPACES["cifar10-32"], samples=240)


class Shuffled:
    """The batches of a loader with random labels, the same for a sample in all epochs."""

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.set_epoch, self.num_classes = batches.set_epoch, batches.num_classes

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, _ in self.batches:
            # A number of the sample's own content, so that the label goes with it in any order.
            content = inputs.flatten(1).double().sum(1)
            labels = (content * 1e6 + self.seed).long().remainder(104729)
            yield inputs, labels.remainder(self.num_classes)


def shuffled(space: Space, seed: int) -> Shuffled:
    """Return a space's training batches with random labels."""
    return Shuffled(space.batches("train", seed), seed)


def shuffled_photographs(space: Space, seed: int) -> Shuffled:
    """Return photographs with random labels, not augmented, since labels come from the content."""
    options = {"batch_size": 64, "seed": seed, "limit": space.samples, "augment": as_they_are}
    return Shuffled(load("cifar10", split="train", **options), seed)


def one_pixel(space: Space, seed: int) -> Any:
    """Return a space's training batches, of which one pixel is left: the mean over the image.

    With zero padding one tap of a kernel meets it, whatever the kernel's size.
    """
    mean = partial(F.adaptive_avg_pool2d, output_size=1)
    return space.batches("train", seed).viewed(mean)


def photographs(space: Space, seed: int) -> Any:
    """Return 240 photographs in batches of 16."""
    return load("cifar10", split="train", batch_size=16, seed=seed, limit=space.samples)


CASES = {
    "shuffled labels, planted-5": (SPACES["planted-5"], shuffled),
    "shuffled labels, cifar10-16": (SPACES["cifar10-16"], shuffled_photographs),
    "one pixel, ResNet-8": (replace(SPACES["cifar10-32"], depth=8), one_pixel),
    "one pixel, ResNet-14": (replace(SPACES["cifar10-32"], depth=14), one_pixel),
    "240 photographs": (PHOTOGRAPHS, photographs),
}
"""The spaces in which there is nothing to find, each with its training batches for a seed."""


FIRST = 30
"""The first seed of those searches."""


@dataclass(frozen=True)
class VerdictOptions:
    """Search where nothing can be found, and print how often verdicts are right."""

    seeds: int = 10
    """Number of searches of each case; seeds start at 30."""
    workers: int = 2
    """Processes, of one thread each."""
    tables: Path = FOLDER
    """Folder of the ground-truth tables."""
    searches: Path = Path("results/score")
    """Folder of the searches of bench:score."""
    out: Path = Path("results/verdict/nothing.jsonl")
    """File of the searches made here."""


def search_once(case: str, seed: int) -> dict[str, Any]:
    """Search once in a case where nothing can be found; return the row."""
    torch.set_num_threads(1)
    space, batches = CASES[case]
    plan = search(
        space.network(seed),
        batches(space, seed),
        budget=space.budget,
        config=recipe("bank", seed=seed),
    )
    found = {"plan": plan.sizes, "evidence": asdict(plan.evidence)}
    return {"case": case, "seed": seed, **found, "environment": environment("cpu")}


def gains(space: str, tables: Path, searches: Path) -> tuple[list[tuple[str, float]], float]:
    """Return the verdict and the true gain of each search in a space, and the space's noise floor.

    The gain is the test accuracy of the plan that was found, trained to the end, less that of the
    original sizes, in points.

    Args:
        space: name of the space.
        tables: folder of the ground-truth tables.
        searches: folder of the searches; those of the recipe `bank` count.
    """
    whole = bool(SPACES[space].table)  # then the original sizes may be far from the budget
    plans, accuracies = truth(space, tables, every=whole)
    reached = accuracies.mean(axis=1)
    means = {tuple(plan.values()): 100 * mean for plan, mean in zip(plans, reached, strict=True)}
    original = means[(3,) * len(plans[0])]
    rows = [row for row in read_rows(searches / f"{space}.jsonl") if row.get("evidence")]
    found = [
        (verdict_now(row["evidence"]), means[tuple(row["evidence"]["found"].values())] - original)
        for row in rows
        if row["recipe"] == "bank"
    ]
    return found, 100 * noise_floor(truth(space, tables)[1])


FATES = ("right", "within the noise", "wrong")


def judged(verdict: str, gain: float, floor: float) -> str:
    """Return whether `better` or `worse` is "right", "wrong" or "within the noise"."""
    if abs(gain) <= floor:
        return "within the noise"
    return "right" if (gain > 0) == (verdict == "better") else "wrong"


def known_rows(tables: Path, searches: Path) -> list[list[str]]:
    """Return the rows of the table on spaces whose plans were all trained, and their sum."""
    rows, counts = [], []
    for space in SPACES:
        found, floor = gains(space, tables, searches)
        if not found:
            continue
        large = [verdict for verdict, gain in found if gain > 2 * floor]
        row = [len(found)]
        for verdict in ("better", "worse"):
            fates = [judged(verdict, gain, floor) for said, gain in found if said == verdict]
            row += [fates.count(fate) for fate in FATES]
        counts.append([*row, len(large), sum(verdict != "better" for verdict in large)])
        mean = float(np.mean([gain for _, gain in found]))
        rows.append([space, *_cells(counts[-1]), f"{mean:+.2f}", f"{floor:.2f}"])
    total = _cells(np.sum(counts, axis=0)) if counts else [""] * 4
    return [*rows, ["all", *total, "", ""]]


def _cells(counts: Sequence[int]) -> list[str]:
    searches, *fates = map(str, counts)
    return [searches, *("/".join(part) for part in (fates[:3], fates[3:6], fates[6:]))]


def nothing_rows(path: Path) -> list[list[str]]:
    """Return the rows of the table on cases where nothing can be found."""
    found = read_rows(path)
    rows = []
    for case in CASES:
        evidence = [row["evidence"] for row in found if row["case"] == case]
        verdicts = list(map(verdict_now, evidence))
        counts = [verdicts.count(v) for v in ("no difference shown", "better", "worse")]
        kept = len(verdicts) - verdicts.count("better")
        rows.append([case, *map(str, (len(evidence), *counts, kept))])
    return rows


def show_tables(console: PlainConsole, options: VerdictOptions) -> None:
    """Print both tables."""
    show(
        console,
        "verdicts right/within the noise/wrong; gains above twice the noise/missed",
        ("space", "searches", "better", "worse", "large gains", "mean gain", "noise floor"),
        known_rows(options.tables, options.searches),
    )
    show(
        console,
        "verdicts where nothing can be found",
        ("case", "searches", "no difference shown", "better", "worse", "original kept"),
        nothing_rows(options.out),
    )


def jobs(options: VerdictOptions) -> Sequence[tuple[Path, dict[str, Any], tuple[str, int]]]:
    """Return the searches to make, in the order of their seeds."""
    seeds = range(FIRST, FIRST + options.seeds)
    return [
        (options.out, {"case": case, "seed": seed}, (case, seed))
        for seed in seeds
        for case in CASES
    ]


def main() -> None:
    """Run the command line."""
    options, console = tyro.cli(VerdictOptions, prog="bench:verdict"), PlainConsole()
    run_grid(console, "searches", search_once, jobs(options), options.workers)
    show_tables(console, options)


if __name__ == "__main__":
    main()
