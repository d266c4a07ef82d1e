"""`hatch run bench:course`: where the soft sizes go in a search, and what pushes them there.

Each step's soft sizes, and the gradients that the task and the budget term have with respect to
them, are kept in `results/course/SPACE.jsonl` and drawn beside it.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from effconv_core import SearchableCNN
from effconv_core.figures import save_figure
from effconv_core.io.console import PlainConsole
from effconv_core.run_files import environment
from matplotlib.figure import Figure
from rich.table import Table

from tools.jobs import current_rows, read_rows, run_jobs
from tools.score_search import RECIPES
from tools.spaces import SPACES


@dataclass(frozen=True)
class Options:
    """Search, and record soft sizes and both gradients at every step."""

    space: str = "planted-8"
    """Which space."""
    recipes: tuple[str, ...] = ("paper", "smooth", "fast", "default")
    """Which recipes."""
    seed: int = 0
    """Of the searches."""
    workers: int = 2
    """Processes, of one thread each."""
    out: Path = Path("results/course")
    """Folder of the records and the figure."""


def record(space: str, name: str, seed: int) -> dict:
    """Search once; give the row."""
    torch.set_num_threads(1)
    settings, config = SPACES[space], replace(RECIPES[name], seed=seed)
    searchable = SearchableCNN(settings.network(seed), config).train()
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    train, soft_sizes, task, budget = settings.batches("train", seed), [], [], []
    for epoch in range(config.epochs):
        train.set_epoch(epoch)
        for images, labels in train:
            task_loss = F.cross_entropy(searchable(images), labels)
            terms = task_loss, searchable.budget_loss(settings.budget)
            for term, gradients in zip(terms, (task, budget), strict=True):
                (gradient,) = torch.autograd.grad(term, searchable.soft_sizes, retain_graph=True)
                gradients.append(gradient)
            soft_sizes.append(searchable.soft_sizes.detach())
            optimizer.zero_grad()
            sum(terms).backward()
            optimizer.step()
    return {
        "recipe": name,
        "seed": seed,
        "layers": searchable.layers,
        "soft_sizes": [[round(v, 3) for v in step.tolist()] for step in soft_sizes],
        "task_gradient": [[float(f"{g:.3g}") for g in step.tolist()] for step in task],
        "budget_gradient": [[float(f"{g:.3g}") for g in step.tolist()] for step in budget],
        "config": asdict(config),
        "environment": environment("cpu"),
    }


def draw(rows: list[dict], path: Path) -> None:
    """Draw soft sizes and gradients over the steps, one column a recipe."""
    figure = Figure(figsize=(3.2 * len(rows), 7), layout="constrained")
    axes = figure.subplots(3, len(rows), sharex="col", sharey="row", squeeze=False)
    for column, row in enumerate(rows):
        axes[0, column].set_title(row["recipe"])
        axes[0, column].plot(row["soft_sizes"], label=row["layers"])
        for size in range(1, 7):
            axes[0, column].axhline(size + 0.5, color="grey", lw=0.3)
        for line, key in ((1, "task_gradient"), (2, "budget_gradient")):
            axes[line, column].plot(np.abs(row[key]), lw=0.6)
            axes[line, column].set_yscale("log")
        axes[2, column].set_xlabel("step")
    axes[0, 0].set_ylabel("soft size v")
    axes[1, 0].set_ylabel("|d task loss / dv|")
    axes[2, 0].set_ylabel("|d budget term / dv|")
    axes[0, 0].legend(fontsize="small")
    save_figure(figure, path)


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="bench:course")
    path, console = options.out / f"{options.space}.jsonl", PlainConsole()
    done = {(r["recipe"], r["seed"]) for r in current_rows(path, "recipe", RECIPES)}
    jobs = [
        (path, (options.space, name, options.seed))
        for name in options.recipes
        if (name, options.seed) not in done
    ]
    run_jobs(console, "searches", record, jobs, options.workers)
    by_recipe = {row["recipe"]: row for row in read_rows(path) if row["seed"] == options.seed}
    rows = [by_recipe[name] for name in options.recipes]
    draw(rows, options.out / f"{options.space}.png")

    table = Table(title=f"soft sizes in searches of {options.space}, seed {options.seed}")
    headings = ("recipe", "steps", "at the end", "rounded size changed", "|task gradient|, median")
    headings += ("|budget gradient|, median",)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        soft_sizes = np.array(row["soft_sizes"])
        crossed = (np.diff(soft_sizes.round(), axis=0) != 0).sum(axis=0)
        table.add_row(
            row["recipe"],
            str(len(soft_sizes)),
            "  ".join(f"{v:.2f}" for v in soft_sizes[-1]),
            "  ".join(map(str, crossed)),
            f"{np.median(np.abs(row['task_gradient'])):.1e}",
            f"{np.median(np.abs(row['budget_gradient'])):.1e}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
