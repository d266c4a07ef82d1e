"""Every command that keeps a run, in the smallest settings that it takes, in this process."""

import io
from collections.abc import Callable
from pathlib import Path

import torch
from effconv_core import SizePlan
from effconv_core.cli import main
from effconv_core.cli.errors import run_command
from effconv_core.distributed.process_group import Ranks
from rich.console import Console
from torch import nn

from tools import search
from tools.queue import sweep
from tools.train import flexnet, multi_resolution

BUDGET = 346
PLAN = {"2": 3}


def network() -> nn.Module:
    """Make a network of two convolutions, the second of which is searched."""
    generator = torch.Generator().manual_seed(0)
    first, second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
    pool = nn.Flatten(), nn.AdaptiveAvgPool1d(8)
    net = nn.Sequential(first, nn.ReLU(), second, *pool, nn.Linear(8, 2, bias=False))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return net


def loaders(batch_size: int, seed: int) -> tuple[list, list]:
    """Make two batches for training and one for the test."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(3, 4, 1, 6, 6, generator=generator), torch.arange(12) % 2
    batches = list(zip(images, labels.reshape(3, 4), strict=True))
    return batches[:2], batches[2:]


def quiet() -> Console:
    """Make a console that nobody sees."""
    return Console(file=io.StringIO())


def _effconv(*words: str) -> int:
    try:
        return main([*words, "--device=cpu"])
    except SystemExit as stop:  # of tyro
        return stop.code


OURS = ("tests.small_runs:network", "tests.small_runs:loaders")
TRAIN = ("--train.epochs=1", "--train.batch-size=4")
SEARCH = (
    "--search.epochs=1",
    "--search.least-steps=0",
    "--search.finalists=2",
    "--batch-size=4",
    f"--budget={BUDGET}",
)


def effconv_search(runs: Path, *words: str) -> int:
    """Run `effconv search`."""
    return _effconv("search", *OURS, *SEARCH, *TRAIN, f"--runs={runs}", *words)


def effconv_train(runs: Path, *words: str) -> int:
    """Run `effconv train`."""
    return _effconv("train", *OURS, *TRAIN, f"--runs={runs}", *words)


def demo(runs: Path, *words: str) -> int:
    """Run `search:demo`."""

    def command() -> None:
        given = ["demo", "--samples=64", "--batch-size=32", "--train.batch-size=32"]
        given += ["--search.epochs=1", "--search.least-steps=0", "--search.finalists=1"]
        given += ["--train.epochs=1", "--device=cpu"]
        data, options = search.parse([*given, f"--runs={runs}", *words])
        search.run(data, options, quiet(), Ranks(0, 1, None, "cpu"))

    return _status(command)


def train_flexnet(runs: Path, *words: str) -> int:
    """Run `train:flexnet`."""
    given = ["--data=demo", "--model=flexnet3", "--channels=2", "--limit=32", "--train.epochs=1"]
    given += ["--conv.hidden=4", "--train.batch-size=32", "--device=cpu", f"--runs={runs}"]
    return _status(lambda: flexnet.command([*given, *words], quiet()))


def train_multi_resolution(runs: Path, *words: str) -> int:
    """Run `train:multi-resolution`."""
    given = ["--data=demo", "--layers=3", "--channels=2", "--resolutions=2", "--train.epochs=1"]
    given += ["--train.batch-size=16", "--tune-epochs=1", "--limit=96", "--test-limit=16"]
    given += ["--thresholds", "0.1", "--device=cpu", f"--runs={runs}"]
    return _status(lambda: multi_resolution.command([*given, *words], quiet()))


def sweep_search(runs: Path, *words: str) -> int:
    """Run `sweep:search` of one search; `runs` is its folder."""
    given = ["demo", f"--folder={runs}", *words, "--", "--samples=64", "--batch-size=32"]
    given += ["--train.batch-size=32", "--search.epochs=1", "--search.least-steps=0"]
    given += ["--search.finalists=1"]
    given += ["--train.epochs=1", "--device=cpu"]
    return _status(lambda: sweep.search_command(given, quiet()))


def _status(command: Callable[[], object]) -> int:
    def function() -> int:
        status = command()
        return status if isinstance(status, int) else 0

    try:
        return run_command("a command", function)
    except SystemExit as stop:  # of tyro
        return stop.code


COMMANDS: dict[str, Callable[..., int]] = {
    "effconv search": effconv_search,
    "effconv train": effconv_train,
    "search:demo": demo,
    "train:flexnet": train_flexnet,
    "train:multi-resolution": train_multi_resolution,
}
"""Those that take `--name`, called with the folder of all runs and further words."""


def write_plan(path: Path) -> None:
    """Write a plan of the network."""
    SizePlan(PLAN).save(path)
