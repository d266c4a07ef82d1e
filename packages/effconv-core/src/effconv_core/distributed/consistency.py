"""Distributed search: lockstep iteration and checks that all ranks agree."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from effconv_core.distributed.failures import (
    END,
    RanksDifferError,
    advanced,
    device_of,
    gathered,
    together,
)
from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import copied
from effconv_core.rng import Draws, kept_generators, random_state

if dist.is_available():
    # DistributedDataParallel imports it when constructed, and its functions then keep the default
    # group of that moment as a default argument: destroy_process_group would not end that group's
    # threads, and one still running when the interpreter exits aborts the process.
    import torch.distributed.nn.functional


PROBED = 4  # passes, of which each may skip other layers
# Of a checkpoint, and of a table of `Latency`.
READ = ("epoch", "plan", "progress", "cost of plans")


class Entries(Protocol):
    """The sizes of a search: S entries, of which each is of a layer."""

    ranges: list[range]

    def entry_names(self) -> list[str]:
        """Return for each entry the name of its layer."""


class Replica(Protocol):
    """What ranks compare of the network that they search; `SearchableCNN` is one."""

    space: Entries
    soft_sizes: Tensor | None
    """`(S,)`, those of the last pass."""

    def modules(self) -> Iterator[nn.Module]:
        """Return all modules."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return all parameters."""


def leads(group: dist.ProcessGroup | None) -> bool:
    """Return whether this process writes files: rank 0 of the group, or the only process."""
    return group is None or dist.get_rank(group) == 0


def data_parallel(
    searchable: Replica, group: dist.ProcessGroup | None, *, skips: bool | None = None
) -> Callable[..., Any]:
    """Return a function that runs the network on a rank's inputs; `backward` averages gradients.

    It uses PyTorch's DistributedDataParallel over the predictors and the rest of the CNN, which
    copies the parameters of rank 0 to all others.

    Args:
        searchable: the network, on its device.
        group: the ranks; None returns the searchable network itself.
        skips: whether a pass may leave some parameters unused; None finds it out, see `search`.
    """
    if group is None:
        return searchable
    network: DistributedDataParallel | None = None

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal network
        if network is None:
            # Looking for unused parameters in each step costs time, and warns if all are used;
            # passes of a copy show whether it is needed.
            unused = skips
            if skips is None:
                device = device_of(searchable)
                with together(group, device), kept_generators(device):
                    unused = _may_skip(searchable, (args, kwargs))
            everywhere = gathered([float(unused)], device_of(searchable), group)
            network = DistributedDataParallel(
                _Pass(searchable),
                process_group=group,
                find_unused_parameters=any(row[0] for row in everywhere),
            )
        return network(*args, **kwargs)[0]

    return run


def _may_skip(searchable: Replica, arguments: tuple[tuple, dict[str, Any]]) -> bool:
    """Return whether passes leave parameters unused, or draw what may decide that they do."""
    probe = copy_network(searchable)
    probe.config = dataclasses.replace(probe.config, compile=False)
    for module in probe.modules():  # what dropout draws, skips no layer
        if isinstance(module, _DropoutNd):
            module.training = False
    for _ in range(PROBED):
        args, kwargs = copied(arguments)
        before = random_state(device_of(searchable))
        if _leaves_some_unused(probe, *args, **kwargs):
            return True
        if random_state(device_of(searchable)) != before:
            return True
    return False


def _leaves_some_unused(searchable: Replica, *args: Any, **kwargs: Any) -> bool:
    """Return whether a pass leaves a parameter unused, which is allowed in one process."""
    ends = _tensors_in(_Pass(searchable)(*args, **kwargs))
    stack = [end.grad_fn for end in ends if end.grad_fn is not None]
    reached = set(stack)
    while stack:
        following = {node for node, _ in stack.pop().next_functions if node is not None} - reached
        reached |= following
        stack += following
    if any(type(node).__name__ == "CheckpointFunctionBackward" for node in reached):
        raise ValueError(
            "the network has gradient checkpoints with use_reentrant=True, which "
            "DistributedDataParallel does not take; pass use_reentrant=False"
        )
    used = {id(node.variable) for node in reached if hasattr(node, "variable")}
    return any(p.requires_grad and id(p) not in used for p in searchable.parameters())


def _tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    return [t for v in value for t in _tensors_in(v)] if isinstance(value, list | tuple) else []


class _Pass(nn.Module):
    """A pass that also returns the soft sizes, so that its outputs reach all inputs of the loss.

    DistributedDataParallel treats parameters as unused that it cannot reach from the outputs, and
    some of the size predictor may get a gradient only from the budget term.
    """

    def __init__(self, searchable: Replica) -> None:
        super().__init__()
        self.searchable = searchable

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
        return self.searchable(*args, **kwargs), self.searchable.soft_sizes


def in_step(
    batches: Iterable[Any],
    searchable: Replica,
    group: dist.ProcessGroup | None,
    epoch: int,
) -> Iterator[Any]:
    """Yield the batches of an epoch in lockstep; the state of all ranks is compared before each.

    Raises:
        OtherRankError: if the batches of another rank end with an error.
        ValueError: if a rank has fewer batches than rank 0, or more.
        RanksDifferError: if the state of a rank differs, see `check_ranks`.
    """
    if group is None:
        yield from batches
        return
    device, batches = device_of(searchable), iter(batches)
    for step in count():
        where = f"in epoch {epoch + 1}"
        batch, rows = advanced(batches, step, group, device, where, _state(searchable))
        _compare(rows, searchable, f"in step {step} of epoch {epoch + 1}")
        if batch is END:
            return
        yield batch


def check_ranks(searchable: Replica, group: dist.ProcessGroup | None) -> None:
    """Raise if the soft sizes of a rank differ from those of rank 0 in any bit.

    Sizes and plans follow from them. `search` does this in each step; in your own loop, call it
    after a forward pass, every few steps. It gathers one number for each size.

    Args:
        searchable: the network itself, not its DistributedDataParallel wrapper.
        group: the ranks that share the search, such as `torch.distributed.group.WORLD`, which is
            None in a program of one process; then nothing is compared.

    Raises:
        RanksDifferError: a RuntimeError, on all ranks, if one differs; the message names it and the
            layer.
    """
    if group is not None:
        rows = gathered(_state(searchable), device_of(searchable), group)
        _compare(rows, searchable, "in this step")


def check_same(
    values: Mapping[str, Any], device: torch.device | str, group: dist.ProcessGroup | None
) -> None:
    """Raise if a value of a rank differs from that of rank 0.

    Args:
        values: name to any JSON value.
        device: device of the collective.
        group: the ranks; None compares nothing.

    Raises:
        RanksDifferError: on all ranks, if one differs; the message names it and the value.
        TypeError: if a value is not a JSON value; on other ranks `OtherRankError`.
    """
    if group is None:
        return
    with together(group, device):
        digests = [_digest(value) for value in values.values()]
    rows = gathered([_digest(list(values))], device, group)
    if rows.count(rows[0]) < len(rows):  # then there may be another number of them, too
        rank = next(rank for rank, row in enumerate(rows) if row != rows[0])
        raise RanksDifferError(
            f"rank {rank} is given another choice of arguments than rank 0; give every rank the "
            "same"
        )
    rows = gathered(digests, device, group)
    for rank, row in enumerate(rows):
        for name, mine, theirs in zip(values, row, rows[0], strict=True):
            if mine != theirs:
                read = name in READ
                raise RanksDifferError(
                    f"rank {rank} has another {name} than rank 0; give every rank the same"
                    f"{', and a file that all of them can read' if read else ''}"
                )


def _digest(value: Any) -> float:
    """Return a number of a JSON value; float64 holds integers of 48 bits exactly."""
    return float(int(hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12], 16))


def _state(searchable: Replica) -> list[float]:
    """Return the counts of draws so far, and the S soft sizes of the last pass."""
    counts = [float(m.count) for m in searchable.modules() if isinstance(m, Draws)]
    if searchable.soft_sizes is None:
        return counts + [0.0] * len(searchable.space.ranges)
    return counts + searchable.soft_sizes.tolist()


def _compare(rows: Sequence[Sequence[float]], searchable: Replica, when: str) -> None:
    layers = searchable.space.entry_names()
    for rank, row in enumerate(rows):
        if row == rows[0]:
            continue
        soft = zip(layers, row[-len(layers) :], rows[0][-len(layers) :], strict=True)
        differs = [f"soft size {a} in layer {n!r}, and rank 0 {b}" for n, a, b in soft if a != b]
        what = differs[0] if differs else "drawn its sizes another number of times than rank 0"
        raise RanksDifferError(
            f"rank {rank} has {what} {when}; all ranks must run the same code and versions on the "
            "same kind of device, and the network equally often, so go on from the last checkpoint "
            "where they do"
        )


def average(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Average values over the ranks, in place; the result is bit-identical on all ranks."""
    if group is not None:
        dist.all_reduce(values, group=group)
        values /= dist.get_world_size(group)
    return values
