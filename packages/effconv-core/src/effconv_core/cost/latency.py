"""Measured time as a function of kernel sizes: a table of this machine, stored as JSON."""

import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from effconv_core.cost.base import Searchable
from effconv_core.cost.table import MeasuredCost
from effconv_core.io.atomic import check_place, write_text
from effconv_core.io.kinds import check_kind
from effconv_core.io.read_json import conform, in_brief, read_json
from effconv_core.io.schemas import LatencyFile
from effconv_core.layers.batch_checks import explained_pass
from effconv_core.layers.conv import PredictedConv, resized_conv, take_places
from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import copied, run_on
from effconv_core.space.search_space import Layer

SCHEMA = 1
REMEDY = "pass anew=True to measure again and replace it, or name another table"


@dataclass(frozen=True, eq=False)
class Latency:
    """Measures the time of a forward pass on this machine, for `Budget`, in nanoseconds.

    Plain CNNs are built in which each searched layer takes each of its allowed sizes once, and
    run interleaved, in evaluation mode, on the example. A layer's time is its median within those
    networks; the rest of each pass makes the constant. Where a larger kernel is faster, as odd
    ones often are than the even one below, the cost of a plan says so; the gradient uses the
    average of both, so that for it the cost never falls as a size grows.

    The time is that of the example's batch, dtype and memory format, on the model's device, with
    torch's current number of threads. Run nothing else on the machine while it measures.

    Args:
        example: the network's input, on its device: a tensor, a tuple of arguments or a dict of
            keyword arguments.
        table: JSON file that is read if it exists, and otherwise written; None stores nothing.
        anew: whether to measure again if the table exists, and replace it.
        repetitions: number of timed runs of each network. There are as many networks as the
            layer with the most choices has: sizes, or with sizes per axis tuples of them.
        warmups: number of runs of each network before that.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1))
        >>> cost = Latency(torch.zeros(1, 3, 8, 8), repetitions=3)(SearchableCNN(net))
        >>> cost.counts, cost([7]) >= cost([1]) > 0
        ('nanoseconds', True)
    """

    example: Any
    table: str | os.PathLike[str] | None = None
    anew: bool = False
    repetitions: int = 30
    warmups: int = 5

    def __post_init__(self) -> None:
        if self.table is not None:  # also after an os.chdir
            object.__setattr__(self, "table", Path(self.table).absolute())

    def __call__(self, searchable: Searchable) -> MeasuredCost:
        """Measure a searchable network, or read the table; the network is not changed.

        Raises:
            OSError: if the table cannot be written, before anything is measured.
            TypeError: if the example has another dtype than the network's parameters.
            ValueError: if the table is damaged, holds times that nothing takes, or is of another
                machine, version, number of threads or network, if the network's device has no clock
                here, or if a searched layer is not run on the example.
        """
        network = copy_network(searchable).eval()
        watch = stopwatch(next(network.parameters()).device)
        identity = _identity(network, self.example)
        path = self.table
        if path is not None and path.exists() and not self.anew:
            table = _read(path, identity, network)
        else:
            if path is not None:
                check_place(path)  # raises before the measurement
            # A layer that runs several times has the memory format of its first input.
            layers = identity["layers"].values()
            formats = [layer["inputs"][0]["memory_format"] for layer in layers]
            table = _measure(network, self, watch, formats)
            table = {"schema": SCHEMA, **identity, **table, "repetitions": self.repetitions}
            if path is not None:
                write_text(path, json.dumps(table, indent=1) + "\n")
        return _cost_of(table, searchable)


class Stopwatch(NamedTuple):
    """The clock of a device."""

    mark: Callable[[], Any]
    """Records a moment in the device's work."""
    between: Callable[[Any, Any], float]
    """Returns the nanoseconds between two moments; waits for the work."""


def stopwatch(device: torch.device) -> Stopwatch:
    """Return the clock of a device.

    Raises:
        ValueError: if it is neither a CPU nor a CUDA device.
    """
    if device.type == "cpu":
        return Stopwatch(time.perf_counter_ns, lambda start, end: end - start)
    if device.type != "cuda":
        raise ValueError(
            f"the model is on {device}, and latency is measured on cpu and cuda; move it there or "
            "take another budget"
        )

    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    def between(start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return start.elapsed_time(end) * 1e6

    return Stopwatch(mark, between)


def _identity(network: Searchable, example: Any) -> dict[str, Any]:
    """Return what a table is valid for: machine, versions, and each searched layer's inputs."""
    seen: dict[PredictedConv, list[dict[str, Any]]] = {conv: [] for conv in network.convs}

    def note(conv: PredictedConv, args: Any, named: Any, output: Tensor) -> None:
        given = next(iter((*args, *named.values())))
        # The dtype of the output is the one computed in, under autocast too.
        seen[conv].append(
            {
                "shape": list(given.shape),
                "dtype": str(output.dtype),
                "memory_format": str(_memory_format(given)),
            }
        )

    hooks = [conv.register_forward_hook(note, with_kwargs=True) for conv in network.convs]
    with torch.no_grad(), explained_pass(network.model, example):
        at_sizes = partial(network.forward_at, network.space.smallest())
        run_on(at_sizes, copied(example))
    for hook in hooks:
        hook.remove()
    for name, conv in zip(network.layers, network.convs, strict=True):
        if not seen[conv]:
            raise ValueError(
                f"the network did not run its layer {name!r} on the example, so its time is "
                "unknown; leave it out with `searched` or pass another example"
            )
    device = next(network.parameters()).device
    layers = zip(network.space.layers, network.convs, strict=True)
    return {
        "device": _name_of(device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "model": type(network.model).__name__,
        "parameters of the rest": sum(p.numel() for p in network.model.parameters()),
        "layers": {
            layer.name: {
                "inputs": seen[conv],
                "channels": list(layer.channels),
                "groups": layer.groups,
                "stride": list(conv.stride),
                "dilation": list(conv.dilation),
                "padding_mode": conv.padding_mode,
            }
            for layer, conv in layers
        },
    }


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    cpuinfo = Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else 0
    )
    return f"cpu ({found[1] if found else platform.processor() or platform.machine()})"


def _memory_format(images: Tensor) -> torch.memory_format:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    wanted = formats.get(images.dim())
    if wanted is None or images.is_contiguous() or not images.is_contiguous(memory_format=wanted):
        return torch.contiguous_format
    return wanted


def _measure(
    network: Searchable, latency: Latency, watch: Stopwatch, formats: Sequence[str]
) -> dict[str, Any]:
    """Time each layer at each choice, and the rest; see `Latency`."""
    choices = [_choices(layer) for layer in network.space.layers]
    # In network j layer l takes its choice j + l, so that each runs among neighbours of all sizes.
    numbers = [
        [(j + place) % len(own) for place, own in enumerate(choices)]
        for j in range(max(map(len, choices)))
    ]
    times: list[dict[str, list[float]]] = [{_key(c): [] for c in own} for own in choices]
    rests: list[float] = []
    # Whether glibc returns memory between layers, and faults it in again page by page, depends on
    # the rest of the process; after one block of this size was freed, it keeps up to twice as much.
    torch.empty(31 * 2**20, dtype=torch.uint8)
    with torch.no_grad():
        cnns = [
            _built(network, [own[n] for own, n in zip(choices, row, strict=True)], formats)
            for row in numbers
        ]
        for repetition in range(latency.warmups + latency.repetitions):
            rows = list(zip(cnns, numbers, strict=True))
            for (cnn, convs), row in rows if repetition % 2 else rows[::-1]:
                with _watched(convs, watch) as spans:
                    start = watch.mark()
                    run_on(cnn, latency.example)
                    end = watch.mark()
                if repetition < latency.warmups:
                    continue
                taken = [sum(watch.between(*span) for span in own) for own in spans]
                rests.append(watch.between(start, end) - sum(taken))
                for own, choice, n, value in zip(times, choices, row, taken, strict=True):
                    own[_key(choice[n])].append(value)
    return {
        "seconds": {
            layer.name: {key: _spread(values) for key, values in own.items()}
            for layer, own in zip(network.space.layers, times, strict=True)
        },
        "seconds of the rest": _spread(rests),
    }


def _choices(layer: Layer) -> list[tuple[int, ...]]:
    return list(product(layer.allowed, repeat=layer.size_count))


def _key(choice: Sequence[int]) -> str:
    return "x".join(map(str, choice))


def _built(
    network: Searchable, sizes: Sequence[tuple[int, ...]], formats: Sequence[str]
) -> tuple[nn.Module, list[nn.Module]]:
    """Build the plain CNN of given sizes, sharing all other tensors, and list its layers."""
    tensors = [*network.model.parameters(), *network.model.buffers()]
    cnn = copy_network(network.model, shared=tensors)
    generator = torch.Generator().manual_seed(0)
    resized = [
        resized_conv(conv, layer.shape(size), generator)
        for conv, layer, size in zip(network.convs, network.space.layers, sizes, strict=True)
    ]
    modules = dict(cnn.named_modules())
    places = [modules[name] for name in network.layers]
    take_places(dict(zip(places, resized, strict=True)))
    for conv, memory_format in zip(places, formats, strict=True):
        if memory_format != str(torch.contiguous_format):
            conv.to(memory_format=getattr(torch, memory_format.removeprefix("torch.")))
    cnn.eval()
    return cnn, places


@contextmanager
def _watched(convs: Sequence[nn.Module], watch: Stopwatch) -> Iterator[list[list[tuple[Any, Any]]]]:
    """Record the start and end of each run of each layer."""
    spans: list[list[tuple[Any, Any]]] = [[] for _ in convs]
    starts: list[Any] = []

    def begin(*_: Any) -> None:
        starts.append(watch.mark())

    def finish(own: list[tuple[Any, Any]]) -> Callable[..., None]:
        return lambda *_: own.append((starts.pop(), watch.mark()))

    hooks = [conv.register_forward_pre_hook(begin) for conv in convs]
    hooks += [
        conv.register_forward_hook(finish(own)) for conv, own in zip(convs, spans, strict=True)
    ]
    try:
        yield spans
    finally:
        for hook in hooks:
            hook.remove()


def _spread(nanoseconds: Sequence[float]) -> dict[str, float]:
    """Return median and 20th and 80th percentile, in seconds."""
    p20, median, p80 = (np.percentile(nanoseconds, (20, 50, 80)) / 1e9).tolist()
    return {"median": median, "p20": p20, "p80": p80}


def _read(path: Path, identity: dict[str, Any], network: Searchable) -> dict[str, Any]:
    """Read a table and check that it is valid for this machine and network."""
    try:
        table = read_json(path, Any)
        check_kind(table, "a latency table", (SCHEMA,))
        conform(table, LatencyFile, what="the table")
        for name, now in identity.items():
            if name != "layers" and table[name] != now:
                raise ValueError(f"its {name} is {in_brief(table[name])}, and now it is {now!r}")
        for layer in network.space.layers:
            _check_layer(layer, table, identity["layers"][layer.name])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"latency table {path} does not serve: {reason}; {REMEDY}") from None
    return table


def _check_layer(layer: Layer, table: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    then = table["layers"].get(layer.name)
    if then is None:
        raise ValueError(f"it has no layer {layer.name!r}")
    for name, value in now.items():
        if then.get(name) != value:
            raise ValueError(
                f"the {name} of its layer {layer.name!r} are {in_brief(then.get(name))}, and now "
                f"{value}"
            )
    seconds = table["seconds"].get(layer.name, {})
    missing = [key for c in _choices(layer) if (key := _key(c)) not in seconds]
    if missing:
        raise ValueError(f"its layer {layer.name!r} was not measured at size(s) {missing}")


def _cost_of(table: Mapping[str, Any], searchable: Searchable) -> MeasuredCost:
    tables = []
    for layer in searchable.space.layers:
        seconds = table["seconds"][layer.name]
        values = [seconds[_key(choice)]["median"] * 1e9 for choice in _choices(layer)]
        grid = np.reshape(values, (len(layer.allowed),) * layer.size_count)
        tables.append(np.rint(grid).astype(np.int64))
    rest = max(0, round(table["seconds of the rest"]["median"] * 1e9))
    return MeasuredCost(tuple(tables), searchable.space, rest, "nanoseconds")
