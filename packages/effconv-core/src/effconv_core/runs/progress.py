"""Progress of a run: the bar is moved, a line is printed per epoch, metric rows are written."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from rich.progress import Progress

from effconv_core.distributed.consistency import average
from effconv_core.engine.search import SearchStep
from effconv_core.engine.train import TrainStep
from effconv_core.io.progress_bar import EVERY
from effconv_core.runs.metrics import Metrics
from effconv_core.scalars import in_figures

LONG = 60.0  # seconds of a phase from which on the expected time is told


def step_meter(
    progress: Progress,
    metrics: Metrics | None,
    phase: str,
    *,
    epochs: int,
    steps_per_epoch: int,
    budget: float | None = None,
    extra: Callable[[], dict[str, Any]] | None = None,
    validate: Callable[[], float] | None = None,
    group: dist.ProcessGroup | None = None,
) -> Callable[[SearchStep | TrainStep], None]:
    """Return an `on_step` callback that updates the bar and writes the metrics of one phase.

    The bar and the line of an epoch show means over the samples of the epoch so far. A row holds
    loss and accuracy of its batch; the last row of an epoch also `epoch_loss` and
    `epoch_accuracy`, the means over all of its samples.

    Args:
        progress: the bar.
        metrics: where rows are written; None on all ranks except the first.
        phase: `search`, `train` or another.
        epochs: number of epochs of the phase.
        steps_per_epoch: number of steps per epoch.
        budget: target parameter count, shown beside the parameters of a search; None if none.
        extra: returns additional values for a row.
        validate: called at the end of each epoch; returns the validation accuracy, 0 to 1, which
            the row holds as `val_accuracy`.
        group: the ranks over which loss and accuracy are averaged.
    """
    task = progress.add_task(phase, total=epochs * steps_per_epoch, status="")
    started = time.perf_counter()
    first: tuple[int, float] | None = None  # the first step, which warms up, and its end
    told_time = False
    sums = torch.zeros(3)  # of the epoch so far: loss, right answers, samples

    def on_step(step: SearchStep | TrainStep) -> None:
        nonlocal started, sums, first, told_time
        global_step = step.epoch * steps_per_epoch + step.step + 1
        ends_epoch = step.step + 1 == steps_per_epoch
        samples = len(step.targets)
        labels, soft = step.targets, step.targets.is_floating_point()
        labels = labels.argmax(1) if soft else labels  # of probabilities the likeliest class
        hits = (step.outputs.argmax(1) == labels).float().sum()
        batch = torch.stack([step.task_loss.float() * samples, hits, hits.new_tensor(samples)])
        sums = batch if step.step == 0 else sums.to(batch.device) + batch
        first = first or (global_step, time.perf_counter())
        if global_step % EVERY and not ends_epoch:
            progress.update(task, completed=global_step)
            return
        (loss, accuracy), (mean_loss, mean_accuracy) = (
            (part[:2] / part[2]).tolist() for part in average(torch.stack([batch, sums]), group)
        )
        values: dict[str, Any] = {"loss": loss, "accuracy": accuracy}
        # Both are means over the epoch so far; a line ends it, and a row holds them then.
        brief, line = f"{mean_loss:.3f} {mean_accuracy:.1%}", ""
        if isinstance(step, SearchStep):
            values |= {
                "budget_loss": step.budget_loss.item(),
                "parameters": step.cost,
                "soft_sizes": [round(v, 4) for v in step.soft_sizes.tolist()],
                "sizes": step.sizes,
            }
            line = f"  parameters {step.cost:,}"
            line += "" if budget is None else f" of {in_figures(budget)}"
            brief += "" if budget is None else f" cost {step.cost / budget - 1:+.0%}"
        elif step.rate is not None:
            values["lr"] = step.rate
        if extra is not None:
            values |= extra()
        now = time.perf_counter()
        if not told_time and first is not None and global_step - first[0] >= EVERY - 1:
            told_time = True
            each = (now - first[1]) / (global_step - first[0])
            if (left := each * (epochs * steps_per_epoch - global_step)) >= LONG:
                progress.console.print(f"{phase}: about {left / 60:,.0f} min to go")
        if ends_epoch:
            values |= {"epoch_loss": mean_loss, "epoch_accuracy": mean_accuracy}
            values["seconds"] = round(now - started, 3)
            if validate is not None:
                values["val_accuracy"] = validate()
                line += f"  validation {values['val_accuracy']:.1%}"
        if metrics is not None:
            metrics.log(phase, step.epoch, global_step, **values)
        if ends_epoch:
            means = f"loss {mean_loss:.3f}  accuracy {mean_accuracy:.1%}"
            told = f"{phase} epoch {step.epoch + 1}/{epochs}: {means}{line}  {now - started:.1f} s"
            progress.console.print(told, soft_wrap=True)
            started = time.perf_counter()
        progress.update(task, completed=global_step, status=brief)

    return on_step
