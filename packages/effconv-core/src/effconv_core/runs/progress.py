"""Progress reporting: a terminal bar, one line per epoch, and metric rows."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from effconv_core.distributed.consistency import average
from effconv_core.engine.search import SearchStep
from effconv_core.engine.train import TrainStep
from effconv_core.runs.metrics import Metrics
from effconv_core.scalars import in_figures

EVERY = 10  # steps between readings, because each one waits for the device


def progress_bar(console: Console) -> Progress:
    """Build the progress bar of a run: phase, loss, accuracy, parameters against budget, time left.

    It is disabled in a pipe or a file; `step_meter` still writes its lines.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}% {task.fields[status]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_interactive,
    )


def step_meter(
    progress: Progress,
    metrics: Metrics | None,
    phase: str,
    *,
    epochs: int,
    steps_per_epoch: int,
    budget: float | None = None,
    extra: Callable[[], dict[str, Any]] | None = None,
    group: dist.ProcessGroup | None = None,
) -> Callable[[SearchStep | TrainStep], None]:
    """Return an `on_step` callback that updates the bar and writes the metrics of one phase.

    Args:
        progress: the bar.
        metrics: where rows are written; None on all ranks except the first.
        phase: `search`, `train` or another.
        epochs: number of epochs of the phase.
        steps_per_epoch: number of steps per epoch.
        budget: target parameter count, shown beside the parameters of a search; None if none.
        extra: returns additional values for a row.
        group: the ranks over which loss and accuracy are averaged.
    """
    task = progress.add_task(phase, total=epochs * steps_per_epoch, status="")
    started = time.perf_counter()

    def on_step(step: SearchStep | TrainStep) -> None:
        nonlocal started
        global_step = step.epoch * steps_per_epoch + step.step + 1
        ends_epoch = step.step + 1 == steps_per_epoch
        if global_step % EVERY and not ends_epoch:
            progress.update(task, completed=global_step)
            return
        hits = (step.outputs.argmax(1) == step.targets).float().mean()
        loss, accuracy = average(torch.stack([step.task_loss.float(), hits]), group).tolist()
        values: dict[str, Any] = {"loss": loss, "accuracy": accuracy}
        status = f"loss {values['loss']:.3f}  accuracy {accuracy:.1%}"
        if isinstance(step, SearchStep):
            values |= {
                "budget_loss": step.budget_loss.item(),
                "parameters": step.cost,
                "soft_sizes": [round(v, 4) for v in step.soft_sizes.tolist()],
                "sizes": step.sizes,
            }
            status += f"  parameters {step.cost:,}"
            status += "" if budget is None else f" of {in_figures(budget)}"
        if extra is not None:
            values |= extra()
        if ends_epoch:
            now = time.perf_counter()
            values["seconds"] = round(now - started, 3)
            started = now
        if metrics is not None:
            metrics.log(phase, step.epoch, global_step, **values)
        if ends_epoch:
            line = f"{phase} epoch {step.epoch + 1}/{epochs}: {status}"
            progress.console.print(line, soft_wrap=True)
        progress.update(task, completed=global_step, status=status)

    return on_step
