"""What every timing shares: options, sides that take turns, quantiles, and the raw result."""

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import tyro
from effconv_core.cli.errors import check_device, run_command
from effconv_core.cost.latency import stopwatch
from effconv_core.io.atomic import write_text
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment
from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What every benchmark can be told."""

    LEAST: ClassVar[Mapping[str, int]] = {
        **{"rounds": 1, "pairs": 2, "repetitions": 1, "steps": 1, "warmups": 0, "threads": 1}
    }
    """The least of each number that says how often something is done; percentiles take two."""

    threads: int = torch.get_num_threads()
    """Threads of the CPU."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """`cpu`, `cuda` or one of several, such as `cuda:1`."""
    out: Path | None = None
    """File for the result as JSON."""

    def __post_init__(self) -> None:
        for name, least in self.LEAST.items():
            if (value := getattr(self, name, least)) < least:
                raise ValueError(f"{name} is {value}; it must be at least {least}, so raise it")


Options = TypeVar("Options", bound=BenchOptions)


def run_bench(name: str, kind: type[Options], run: Callable[[Options, Console], None]) -> None:
    """Run the command line of a benchmark, and exit with its status.

    Args:
        name: of the command, such as `bench:fft`.
        kind: its options.
        run: times, writes and shows.
    """

    def function() -> None:
        options = tyro.cli(kind, prog=name)
        check_device(options.device)
        torch.set_num_threads(options.threads)
        run(options, PlainConsole())

    sys.exit(run_command(name, function))


def interleave(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    device: str,
    warmups: int = 0,
    before: Callable[[], object] | None = None,
    after: Callable[[], object] | None = None,
    until: Callable[[int], bool] | None = None,
) -> dict[str, list[float]]:
    """Time several sides in turns, so that whatever else the machine does falls on all of them.

    Odd rounds go through the sides forward, even ones backward; the device's work is waited for.

    Args:
        sides: what is timed, by name.
        rounds: how often each is timed.
        device: where the sides work.
        warmups: rounds before them that are not counted.
        before: called before each round, untimed.
        after: called after each round, untimed; it may refuse what it finds.
        until: told how many rounds are counted, before each of them; ends the timing if it is true.

    Returns:
        The seconds of each counted turn, by side.
    """
    watch = stopwatch(torch.device(device))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warmups, rounds):
        if until is not None and number >= 0 and until(number):
            break
        if before is not None:
            before()
        for name in list(sides)[:: 1 if number % 2 else -1]:
            start = watch.mark()
            sides[name]()
            nanoseconds = watch.between(start, watch.mark())
            if number >= 0:
                times[name].append(nanoseconds / 1e9)
        if after is not None:
            after()
    return times


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return median and 20th and 80th percentile as `median`, `p20` and `p80`."""
    deciles = statistics.quantiles(values, n=10)
    return {"median": statistics.median(values), "p20": deciles[1], "p80": deciles[7]}


def result(options: BenchOptions, data: str = "", **more: Any) -> dict[str, Any]:
    """Return a raw result: the settings, the environment, and what was measured.

    Args:
        options: of the command; `out` is left out.
        data: what the pictures are, if that matters.
        **more: what was measured.
    """
    settings = {name: value for name, value in asdict(options).items() if name != "out"}
    where = {"data": data} if data else {}
    return {"settings": settings, "environment": where | environment(options.device), **more}


def write(content: dict[str, Any], out: Path | None, console: Console) -> None:
    """Write a raw result whole, with the folders that it needs; None writes nothing."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, json.dumps(content, indent=1) + "\n")
        console.print(f"{out} written", soft_wrap=True)
