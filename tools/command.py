"""What commands with a run folder share: their data, how options are spelled, refusals."""

import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

DATA = ("cifar10", "mnist", "demo")


def data_and_options(arguments: list[str], *groups: str) -> tuple[str, list[str]]:
    """Divide a command line into the data's name and the options.

    Args:
        arguments: the command line.
        groups: options of these groups may be written `--group-name` as well as `--group.name`.

    Raises:
        ValueError: if the first argument names no data.
    """
    data, *rest = arguments or [""]
    if data not in DATA:
        raise ValueError(f"data {data!r} is unknown; name one of {', '.join(DATA)} first")
    dashed = rf"^--({'|'.join(groups)})-"
    return data, [re.sub(dashed, r"--\1.", argument) for argument in rest]


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
