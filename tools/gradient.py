"""`hatch run bench:gradient`: does dL/dv point towards the better plan?

With the soft sizes held at their start, where all sizes are 3, the kernels and the rest of the
network are trained for the search's epochs; in the last one the task loss's gradient with respect
to each soft size is recorded. A plan whose sizes lie along the negative gradient should be better:
its score, minus the gradient times its distance from sizes 3, is compared with the ground truth.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from effconv_core import SearchableCNN
from effconv_core.io.console import PlainConsole
from effconv_core.run_files import environment
from rich.table import Table
from torch import Tensor

from tools.ground_truth import FOLDER
from tools.jobs import current_rows, read_rows, run_jobs
from tools.proxy import spearman
from tools.score_search import RECIPES, noise_floor, truth
from tools.spaces import SPACES

NEAR = 3  # sizes in which two neighbouring plans differ, summed over layers


@dataclass(frozen=True)
class Options:
    """Train at fixed soft sizes, and compare dL/dv with the ground truth."""

    spaces: tuple[str, ...] = ("planted-2.5", "planted-5", "planted-8", "mnist", "cifar10-16")
    """Which spaces; each needs its ground-truth table, and a budget of sizes 3."""
    recipes: tuple[str, ...] = ("paper", "fast", "fast, bank", "default")
    """Which recipes give kernels, mask, rates and epochs."""
    seeds: int = 3
    """Trainings of each recipe in each space."""
    workers: int = 2
    """Processes, of one thread each."""
    tables: Path = FOLDER
    """Folder of the ground-truth tables."""
    out: Path = Path("results/gradient")
    """Folder of the recorded gradients."""


def record(space: str, name: str, seed: int) -> dict:
    """Train at fixed soft sizes; give the row with the last epoch's gradients."""
    torch.set_num_threads(1)
    settings, config = SPACES[space], replace(RECIPES[name], seed=seed)
    searchable = SearchableCNN(settings.network(seed), config).train()
    kernels_and_rest = searchable.parameter_groups()[1:]
    optimizer = torch.optim.AdamW(kernels_and_rest)
    train, gradients = settings.batches("train", seed), []
    for epoch in range(config.epochs):
        train.set_epoch(epoch)
        for images, labels in train:
            loss = F.cross_entropy(searchable(images), labels)
            searchable.soft_sizes.retain_grad()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if epoch == config.epochs - 1:
                gradients.append(searchable.soft_sizes.grad)
    steps = torch.stack(gradients)
    share = kernel_change(searchable) if config.mask == "gaussian" else {}
    return {
        "recipe": name,
        "seed": seed,
        "mean": [round(g, 6) for g in steps.mean(0).tolist()],
        "standard_error": [round(e, 6) for e in (steps.std(0) / len(steps) ** 0.5).tolist()],
        "layers": searchable.layers,
        **share,
        "config": asdict(config),
        "environment": environment("cpu"),
    }


@torch.no_grad()
def kernel_change(searchable: SearchableCNN, step: float = 1e-2) -> dict[str, list[float]]:
    """Say what the kernels' change with v is made of, by central differences at fixed sizes.

    Returns:
        For each layer, two parts of the squared norm of dw/dv: `scale`, what multiplies each output
        channel by a number, which normalisation undoes; `shift`, what moves the kernel over the
        image, of the rest.
    """
    soft_sizes, sizes = searchable.size_predictor(), [3] * len(searchable.layers)
    source = searchable.kernel_predictor
    pairs = zip(source(soft_sizes + step, sizes), source(soft_sizes - step, sizes), strict=True)
    shares: dict[str, list[float]] = {"scale": [], "shift": []}
    for kernel, (more, less) in zip(source(soft_sizes, sizes), pairs, strict=True):
        change = (more - less) / (2 * step)
        rest = change - projection(change.flatten(1), kernel.flatten(1)).view_as(change)
        total, left = change.square().sum(), rest.square().sum()
        # The change of a kernel that moves by a little, along each axis.
        padded = F.pad(kernel, (1, 1, 1, 1))
        down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]).flatten()
        right = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]).flatten()
        basis = torch.stack([down, right], dim=1)
        moved = basis @ torch.linalg.lstsq(basis, rest.flatten()[:, None]).solution
        shares["scale"].append(round(float(1 - left / total), 4))
        shares["shift"].append(round(float(moved.square().sum() / total), 4))
    return shares


def projection(vectors: Tensor, onto: Tensor) -> Tensor:
    """Project each row of `(N, D)` onto the same row of another."""
    factor = (vectors * onto).sum(1, keepdim=True) / onto.square().sum(1, keepdim=True)
    return factor * onto


def agreement(
    gradient: Sequence[float], plans: Sequence[Sequence[int]], accuracies: np.ndarray
) -> tuple[float, float, int]:
    """Compare what a gradient says of plans with what is true of them.

    Returns:
        Spearman's correlation over all plans; the part of neighbouring pairs, whose accuracies
        differ by more than the noise floor, that the gradient orders right; how many those are.
    """
    means, floor = accuracies.mean(axis=1), noise_floor(accuracies)
    sizes = np.array(plans)
    said = -(sizes - 3) @ np.array(gradient)
    right = [
        (said[a] - said[b]) * (means[a] - means[b]) > 0
        for a, b in combinations(range(len(sizes)), 2)
        if np.abs(sizes[a] - sizes[b]).sum() <= NEAR and abs(means[a] - means[b]) > floor
    ]
    return spearman(means, said), float(np.mean(right)), len(right)


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="bench:gradient")
    jobs = []
    for space in options.spaces:
        path = options.out / f"{space}.jsonl"
        done = {(r["recipe"], r["seed"]) for r in current_rows(path, "recipe", RECIPES)}
        jobs += [
            (path, (space, name, seed))
            for name in options.recipes
            for seed in range(options.seeds)
            if (name, seed) not in done
        ]
    console = PlainConsole()
    run_jobs(console, "fixed soft sizes", record, jobs, options.workers)

    table = Table(title="dL/dv against the ground truth, mean over seeds")
    headings = ("space", "recipe", "dL/dv of the first layer", "of the others", "over its error")
    headings += ("Spearman", "neighbours right", "scale", "shift")
    for heading in headings:
        table.add_column(heading)
    for space in options.spaces:
        plans, accuracies = truth(space, options.tables)
        sizes = [list(plan.values()) for plan in plans]
        for name in options.recipes:
            recorded = read_rows(options.out / f"{space}.jsonl")
            rows = [row for row in recorded if row["recipe"] == name]
            means = np.array([row["mean"] for row in rows])
            errors = np.array([row["standard_error"] for row in rows])
            found = [agreement(row["mean"], sizes, accuracies) for row in rows]
            correlations, right, pairs = zip(*found, strict=True)
            shares = ["", ""]
            if "scale" in rows[0]:
                shares = [
                    f"{np.mean([row[share] for row in rows]):.2f}" for share in ("scale", "shift")
                ]
            table.add_row(
                space,
                name,
                f"{means[:, 0].mean():+.4f}",
                f"{means[:, 1:].mean():+.4f}",
                f"{np.median(np.abs(means) / errors):.1f}",
                f"{np.mean(correlations):+.2f} "
                f"({min(correlations):+.2f} to {max(correlations):+.2f})",
                f"{100 * np.mean(right):.0f} % of {pairs[0]}",
                *shares,
            )
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
