"""What commands with a run folder share: how they begin, and how they refuse."""

import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console


def check_device(device: str) -> None:
    """Refuse a GPU that is not there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but this torch sees no GPU; pass --device cpu")


def run_command(title: str, run: Callable[[list[str], Console], Path]) -> None:
    """Run a command on `sys.argv`; a refusal is one line and exit status 2.

    Args:
        title: what a refusal begins with.
        run: takes the arguments and the console, and gives the run's folder.
    """
    console = Console()
    started = time.perf_counter()
    # Torch says so once for every even size: true, and no concern of who runs a command.
    warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
    try:
        folder = run(sys.argv[1:], console)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        Console(stderr=True).print(f"{title}: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(2)
    console.print(f"{folder / 'report.md'} written after {time.perf_counter() - started:.0f} s")
