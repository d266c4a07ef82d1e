"""What a run says before it begins: where it runs, on what, for how long, within which budget."""

from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from effconv_core.cost.budget import Budgets
from effconv_core.engine.train import TrainConfig
from effconv_core.method.searchable import SearchableCNN

LEAST_STEPS = 50
"""Steps below which the soft sizes of a search hardly leave where they begin."""
LARGEST_BATCH, SMALLEST_BATCH = 128, 8


def fitting_batch(samples: int | None, epochs: int, most: int = LARGEST_BATCH) -> int:
    """Return the largest power of two, 8 to `most`, that suits a set.

    It gives at least `LEAST_STEPS` steps, and leaves out at most a tenth of an epoch's samples, as
    short last batches are dropped.

    Args:
        samples: of one epoch; None, where it is not known, gives `most`.
        epochs: of the search or the training.
        most: the largest batch.

    Examples:
        >>> fitting_batch(50_000, 2), fitting_batch(240, 2), fitting_batch(240, 50)
        (128, 8, 32)
    """
    size = most
    while samples is not None and size > SMALLEST_BATCH:
        steps = samples // size
        if steps * epochs >= LEAST_STEPS and 10 * steps * size >= 9 * samples:
            break
        size //= 2
    return size


def batches_of(size: int, samples: int | None) -> str:
    """Return the line that tells the batch size of a command, and of how many images."""
    return f"batches of {_count(size, 'image')}" + (
        "" if samples is None else f" ({samples:,} in the set)"
    )


def say_where(console: Console, folder: Path, device: str, model: nn.Module) -> None:
    """Print the folder and the device of a run, and the parameters of its network."""
    count = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"run {folder} on {device}: a network of {count:,} parameters", soft_wrap=True)


def say_search(
    console: Console,
    searchable: SearchableCNN,
    budget: Budgets,
    steps: int,
    batch: int,
    samples: Any,
) -> None:
    """Print layers, budget and steps of a search; warn where these are fewer than `LEAST_STEPS`."""
    limits = [
        str(c) if c.budget.at_most else f"{c} ± {c.tolerance:.0%}"
        for c in searchable.constraints(budget)
    ]
    layers, epochs = len(searchable.layers), searchable.config.epochs_of(max(steps, 1))
    told = f"search: {layers} layers, budget {' and '.join(limits)}"
    console.print(f"{told}, {_steps(epochs, steps, batch, samples)}", soft_wrap=True)
    if epochs * steps < LEAST_STEPS:
        remedy = f"pass --search.epochs {-(-LEAST_STEPS // max(steps, 1))}"
        if samples is not None and (size := fitting_batch(samples, epochs, batch)) < batch:
            enough = samples // size * epochs >= LEAST_STEPS
            remedy = (
                f"pass --batch-size {size}" if enough else f"{remedy}, or a --batch-size of {size}"
            )
        console.print(
            f"warning: a search of {epochs * steps} steps is short, and the sizes hardly move in "
            f"fewer than {LEAST_STEPS}; {remedy}",
            style="yellow",
            soft_wrap=True,
        )


def say_training(console: Console, config: TrainConfig, steps: int, samples: int | None) -> None:
    """Print epochs and steps of a training."""
    told = _steps(config.epochs, steps, config.batch_size, samples)
    console.print(f"training: {told}, learning rate {config.lr:g}", soft_wrap=True)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _steps(epochs: int, steps: int, batch: int, samples: int | None) -> str:
    told = f"{_count(epochs, 'epoch')} of {_count(steps, 'step')} of {_count(batch, 'image')}"
    if samples is None:
        return told
    dropped = samples - steps * batch
    rest = (
        f", {dropped} left out of each epoch: short last batches are dropped" if dropped > 0 else ""
    )
    return f"{told} ({samples:,} in the set{rest})"
