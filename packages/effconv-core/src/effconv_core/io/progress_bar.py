"""The progress bar of commands and, where asked for, of `search`, `train` and `frontier`.

It needs rich, of `pip install effconv-core[cli]`, which is imported only where a bar is drawn.
"""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

EVERY = 10  # steps between readings, because each one waits for the device

OnStep = Callable[[Any], None]
OnRound = Callable[[int, int], None]


def progress_bar(console: "Console") -> "Progress":
    """Build the progress bar of a run: phase, loss, accuracy, cost against the budget, time left.

    It takes at most 76 columns. It is disabled in a pipe or a file; a command still writes the
    lines of its epochs there.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=12),
        TextColumn("{task.percentage:>3.0f}%", markup=False),
        # Never a second line: a terminal that adds ^C to the bar would then show two.
        TextColumn("{task.fields[status]}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_interactive,
    )


def check_bar() -> None:
    """Raise where no progress bar can be drawn.

    Raises:
        ModuleNotFoundError: if rich is not installed.
    """
    try:
        import effconv_core.io.console  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"progress=True needs {error.name}; pip install 'effconv-core[cli]'", name=error.name
        ) from None


@contextmanager
def shown(
    phase: str,
    loader: Any,
    on_step: OnStep | None = None,
    on_round: OnRound | None = None,
    *,
    show: bool,
    epochs_of: Callable[[int], int] = lambda steps: 1,
    budget: Any = None,
    rounds: int | None = None,
) -> Iterator[tuple[OnStep | None, OnRound | None]]:
    """Draw the bar of a library function on the standard error for as long as the block runs.

    The bar shows the mean loss over the steps of the epoch, read every ten steps. Nothing is drawn
    where the standard error is no terminal and no notebook.

    Args:
        phase: its first word.
        loader: its length is the number of steps of an epoch; without one that is known after the
            first epoch.
        on_step: called after each step; None calls nothing.
        on_round: called before each round of what follows the steps, or of all where there are no
            steps, with its number, from 1, and a count; None calls nothing.
        show: whether a bar is drawn; otherwise the callbacks are returned as they are.
        epochs_of: returns the number of epochs for a number of steps an epoch.
        budget: the target parameter count, against which the cost of a step is shown if it is a
            number.
        rounds: how many rounds there are at most; the count is then of plans. None takes the count.

    Returns:
        A context manager whose value is the two callbacks, which move the bar.

    Raises:
        ModuleNotFoundError: if a bar is to be drawn and rich is not installed.
    """
    if not show:
        yield on_step, on_round
        return
    check_bar()
    from effconv_core.io.console import PlainConsole

    steps = operator.length_hint(loader) or None
    last, sums = None, 0.0
    with progress_bar(PlainConsole(stderr=True)) as bar:
        task = bar.add_task(phase, total=steps and epochs_of(steps) * steps, status="")
        of_rounds = None

        def stepped(step: Any) -> None:
            nonlocal last, steps, sums
            if steps is None and last is not None and step.epoch > last.epoch:
                steps = last.step + 1
                bar.update(task, total=epochs_of(steps) * steps)
            sums = step.task_loss if step.step == 0 else sums + step.task_loss
            last = step
            if step.step % EVERY == 0 or step.step + 1 == steps:
                status = f"loss {float(sums) / (step.step + 1):.3f}"
                if isinstance(budget, int | float):
                    status += f" cost {step.cost / budget - 1:+.0%}"
                bar.update(task, status=status)
            bar.update(task, completed=step.epoch * (steps or 0) + step.step + 1)
            if on_step is not None:
                on_step(step)

        def rounded(number: int, count: int) -> None:
            nonlocal of_rounds
            if of_rounds is None:
                bar.update(task, visible=False)
                of_rounds = bar.add_task(phase, total=rounds or count, status="")
            status = f"round {number}" + (f", {count} plans" if rounds else f" of {count}")
            bar.update(of_rounds, completed=number - 1, status=status)
            if on_round is not None:
                on_round(number, count)

        yield stepped, rounded
        if of_rounds is not None:
            bar.update(of_rounds, completed=bar.tasks[-1].total)
