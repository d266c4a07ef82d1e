"""`hatch run bench:proxy`: do predicted kernels rank plans as training from scratch does?

With each plan of a space held fixed, the network on predicted kernels is trained for the search's
epochs; its test accuracies are compared with the ground truth by Spearman's correlation. Where it
is low, no way of learning the sizes can find the best plan.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from effconv_core import SearchableCNN
from effconv_core.io.console import PlainConsole
from effconv_core.run_files import environment
from effconv_core.training import evaluate
from rich.table import Table
from torch import Tensor, nn

from tools.ground_truth import FOLDER
from tools.jobs import current_rows, read_rows, run_jobs
from tools.score_search import RECIPES, truth
from tools.spaces import SPACES

FAST = RECIPES["fast"]
FORMS = {
    **{name: RECIPES[name] for name in ("smooth", "fast", "fast, bank", "default")},
    "fast, hidden 16": replace(FAST, kernel_hidden=16),
    "fast, hidden 256": replace(FAST, kernel_hidden=256),
    "fast, literal": replace(FAST, kernel_form="literal"),
}
"""Where kernels come from, at which rates, for how many epochs."""


@dataclass(frozen=True)
class Options:
    """Train each plan of a space on predicted kernels, and compare with training from scratch."""

    spaces: tuple[str, ...] = ("planted-8", "cifar10-16")
    """Which spaces; each needs its ground-truth table."""
    forms: tuple[str, ...] = tuple(FORMS)
    """Which sources of kernels."""
    workers: int = 2
    """Processes, of one thread each."""
    tables: Path = FOLDER
    """Folder of the ground-truth tables."""
    out: Path = Path("results/proxy")
    """Folder of the trainings on predicted kernels."""


class AtSizes(nn.Module):
    """A network on predicted kernels whose sizes never change."""

    def __init__(self, searchable: SearchableCNN, sizes: Sequence[int]) -> None:
        super().__init__()
        self.searchable, self.sizes = searchable, sizes

    def forward(self, images: Tensor) -> Tensor:
        """Run the network."""
        return self.searchable.forward_at(self.sizes, images)


def train_predicted(space: str, name: str, plan: dict[str, int]) -> dict:
    """Train the network on predicted kernels of fixed sizes; give the row."""
    torch.set_num_threads(1)
    started = time.process_time()
    settings, config = SPACES[space], replace(FORMS[name], seed=0)
    searchable = SearchableCNN(settings.network(0), config)
    fixed = AtSizes(searchable, [plan[layer] for layer in searchable.layers])
    optimizer = torch.optim.AdamW(searchable.parameter_groups())
    train, losses = settings.batches("train", 0), []
    fixed.train()
    for epoch in range(config.epochs):
        train.set_epoch(epoch)
        for images, labels in train:
            loss = F.cross_entropy(fixed(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return {
        "form": name,
        "plan": plan,
        "accuracy": evaluate(fixed, settings.batches("test", 0)),
        "loss": torch.stack(losses[-len(train) :]).mean().item(),
        "cpu_seconds": round(time.process_time() - started, 2),
        "environment": environment("cpu"),
        "config": asdict(config),
    }


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Give the rank correlation of two arrays `(N,)`; equal values share their mean rank."""

    def ranks(values: np.ndarray) -> np.ndarray:
        below = (values[:, None] > values).sum(axis=1)
        return below + ((values[:, None] == values).sum(axis=1) - 1) / 2

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def main() -> None:
    """Run the command line."""
    options = tyro.cli(Options, prog="bench:proxy")
    jobs = []
    for space in options.spaces:
        path = options.out / f"{space}.jsonl"
        done = [(row["form"], row["plan"]) for row in current_rows(path, "form", FORMS)]
        jobs += [
            (path, (space, name, plan))
            for name in options.forms
            for plan in SPACES[space].plans()
            if (name, plan) not in done
        ]
    console = PlainConsole()
    run_jobs(console, "fixed plans", train_predicted, jobs, options.workers)

    table = Table(title="Spearman's correlation with training from scratch, sizes held fixed")
    for heading in ("space", "kernels from", "by accuracy", "by loss", "mean accuracy, %"):
        table.add_column(heading)
    for space in options.spaces:
        plans, accuracies = truth(space, options.tables)
        means = accuracies.mean(axis=1)
        seeds = [
            spearman(accuracies[:, s], np.delete(accuracies, s, axis=1).mean(axis=1))
            for s in range(accuracies.shape[1])
        ]
        scratch = [
            "training, another seed",
            f"{np.mean(seeds):.2f}",
            "",
            f"{100 * means.mean():.1f}",
        ]
        table.add_row(space, *scratch)
        for name in options.forms:
            found = read_rows(options.out / f"{space}.jsonl")
            rows = [row for row in found if row["form"] == name]
            expected = np.array([means[plans.index(row["plan"])] for row in rows])
            reached = np.array([row["accuracy"] for row in rows])
            losses = np.array([row["loss"] for row in rows])
            table.add_row(
                space,
                name,
                f"{spearman(expected, reached):.2f}",
                f"{spearman(expected, -losses):.2f}",
                f"{100 * reached.mean():.1f}",
            )
    console.print(table)


if __name__ == "__main__":
    main()
