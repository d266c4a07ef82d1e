"""Distributed search: lockstep iteration and checks that all ranks agree."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import copied
from effconv_core.rng import Draws, kept_generators, random_state

if dist.is_available():
    # DistributedDataParallel imports it when constructed, and its functions then keep the default
    # group of that moment as a default argument: destroy_process_group would not end that group's
    # threads, and one still running when the interpreter exits aborts the process.
    import torch.distributed.nn.functional


PROBED = 4  # passes, of which each may skip other layers
MOST_SAID = 400  # characters of an error that other ranks repeat


class OtherRankError(RuntimeError):
    """Another rank has failed, and raises what the message repeats."""


class RanksDifferError(RuntimeError):
    """Ranks that are to agree do not; raised on all of them, with one message."""


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


@contextmanager
def together(group: dist.ProcessGroup | None, device: torch.device | str) -> Iterator[None]:
    """Let a block of code fail on all ranks where it fails on one.

    Otherwise the others would wait for that rank in the next collective. The block has none itself.

    Args:
        group: the ranks; None where there is one process.
        device: device of the collective.

    Raises:
        OtherRankError: on ranks where it did not fail; the message has the rank and its error.
    """
    failed = None
    try:
        yield
    except Exception as error:  # of any kind, since some of it is the user's code
        failed = error
    _raise_on_all(failed, group, device)


def _raise_on_all(
    failed: Exception | None, group: dist.ProcessGroup | None, device: torch.device | str
) -> None:
    """Raise this rank's own error, or where it has none, that another rank has one."""
    said = "" if failed is None else f"{type(failed).__name__}: {failed}"[:MOST_SAID]
    # Of numbers, since collectives of objects run on the current GPU, and not on a rank's own.
    rows = [] if group is None else _gathered([float(failed is not None)], device, group)
    ranks = [rank for rank, (flag,) in enumerate(rows) if flag]
    if ranks:
        codes = [float(ord(letter)) for letter in said.ljust(MOST_SAID)]
        rows = _gathered(codes, device, group)
    if failed is not None:
        raise failed
    if ranks:
        words = "".join(chr(int(code)) for code in rows[ranks[0]]).rstrip()
        raise OtherRankError(f"rank {ranks[0]} has failed ({words}); see what it says")


def device_of(network: Any) -> torch.device:
    """Return the device of a network's first parameter; the CPU where there is none."""
    parameters = getattr(network, "parameters", None)
    found = next(iter(parameters()), None) if callable(parameters) else None
    return torch.device("cpu") if found is None else found.device


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
                with kept_generators(device_of(searchable)):
                    unused = _may_skip(searchable, (args, kwargs))
            everywhere = _gathered([float(unused)], device_of(searchable), group)
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
    end, device, batches = object(), device_of(searchable), iter(batches)
    for step in count():
        batch, failed = end, None
        try:
            batch = next(batches, end)
        except Exception as error:  # of any kind, since it is the user's loader
            failed = error
        got = -1.0 if failed is not None else float(batch is not end)
        rows = _gathered([got, *_state(searchable)], device, group)
        if any(row[0] < 0 for row in rows):
            _raise_on_all(failed, group, device)
        has_one = [bool(row[0]) for row in rows]
        if len(set(has_one)) > 1:
            other = has_one.index(not has_one[0])
            few, many = (other, 0) if has_one[0] else (0, other)
            raise ValueError(
                f"rank {few} has {step} batches in epoch {epoch + 1} and rank {many} has more; "
                "give every rank the same number of batches, as DistributedSampler and effconv-data"
                " do"
            )
        _compare([row[1:] for row in rows], searchable, f"in step {step} of epoch {epoch + 1}")
        if batch is end:
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
        rows = _gathered(_state(searchable), device_of(searchable), group)
        _compare(rows, searchable, "in this step")


def check_same(
    values: Mapping[str, Any], device: torch.device | str, group: dist.ProcessGroup | None
) -> None:
    """Raise if a value of a rank differs from that of rank 0.

    Args:
        values: name to any JSON value; the names are the same on all ranks.
        device: device of the collective.
        group: the ranks; None compares nothing.

    Raises:
        RanksDifferError: on all ranks, if one differs; the message names it and the value.
    """
    if group is None:
        return
    digests = [hashlib.sha256(json.dumps(v).encode()).hexdigest()[:12] for v in values.values()]
    # float64 holds 48-bit integers exactly.
    rows = _gathered([float(int(digest, 16)) for digest in digests], device, group)
    for rank, row in enumerate(rows):
        for name, mine, theirs in zip(values, row, rows[0], strict=True):
            if mine != theirs:
                raise RanksDifferError(
                    f"rank {rank} has another {name} than rank 0; give every rank the same, and a "
                    "checkpoint or a table of Latency that all of them can read"
                )


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


def _gathered(
    values: Sequence[float], device: torch.device | str, group: dist.ProcessGroup
) -> list[list[float]]:
    """Return the values of all ranks, one row each."""
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, mine, group=group)
    return torch.stack(rows).tolist()


def average(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Average values over the ranks, in place; the result is bit-identical on all ranks."""
    if group is not None:
        dist.all_reduce(values, group=group)
        values /= dist.get_world_size(group)
    return values
