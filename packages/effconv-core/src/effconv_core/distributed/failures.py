"""What fails on one rank ends all of them, and each says why."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

MOST_SAID = 400  # characters of an error that other ranks repeat
PATIENCE = 5.0  # seconds in which a rank that has failed waits in silence for the others
FAILED = "effconv/failed"  # in the store of the ranks
END = object()
"""Stands for the end of the batches of a rank."""

logger = logging.getLogger("effconv_core")


class OtherRankError(RuntimeError):
    """Another rank has failed; the message repeats what it said."""


class RanksDifferError(RuntimeError):
    """Ranks that are to agree do not; raised on all of them, with one message."""


class RankLostError(RuntimeError):
    """Another rank has ended, or is not where this one is, and has not said why."""


@contextmanager
def told(group: dist.ProcessGroup | None) -> Iterator[None]:
    """Let ranks whose collective fails name the rank that has failed, and why.

    It is for a whole program, which ends with what is raised: what a rank says stays in the store.
    There is no collective in it, and nothing waits.

    Args:
        group: all ranks; None where there is one process.

    Raises:
        OtherRankError: in place of the error of the collective.
        RankLostError: so, too, if no rank has said anything.
    """
    try:
        yield
    except Exception as error:
        if group is None or isinstance(error, OtherRankError | RanksDifferError):
            raise
        words = _words_of(error)
        of_gloo = type(error) is RuntimeError and "gloo" in words  # which has no class of its own
        if not of_gloo and not isinstance(error, dist.DistError):
            _leave(f"rank {dist.get_rank(group)} has failed ({words}); see what it says")
            raise
        if left := _left():
            raise OtherRankError(left) from error
        raise RankLostError(
            "another rank has ended or does not answer; see what it says, and start all of them "
            f"again ({words})"
        ) from error


def _leave(words: str) -> None:
    with suppress(Exception):  # the store may be gone, and what has failed says so itself
        dist.distributed_c10d._get_default_store().set(FAILED, words)


def _left() -> str:
    with suppress(Exception):  # of rank 0, if torchrun has no store of its own
        store = dist.distributed_c10d._get_default_store()
        return store.get(FAILED).decode() if store.check([FAILED]) else ""
    return ""


@contextmanager
def together(group: dist.ProcessGroup | None, device: torch.device | str) -> Iterator[None]:
    """Let a block of code fail on all ranks where it fails on one.

    The block itself must hold no collective; batch normalisation does not average over the ranks
    in it.

    Args:
        group: the ranks; None where there is one process.
        device: device of the collective.

    Raises:
        OtherRankError: on ranks where it did not fail; the message has the rank and its error.
    """
    inside = nullcontext() if group is None else own_statistics()
    with _ending_all(group, device), inside:
        yield


@contextmanager
def _ending_all(group: dist.ProcessGroup | None, device: torch.device | str) -> Iterator[None]:
    failed = None
    try:
        yield
    except Exception as error:  # of any kind, since some of it is the user's code
        failed = error
    _raise_on_all(failed, group, device)


@contextmanager
def own_statistics() -> Iterator[None]:
    """Let `SyncBatchNorm` take the statistics of this rank's samples, which is no collective."""
    forward = nn.SyncBatchNorm.forward
    nn.SyncBatchNorm.forward = nn.BatchNorm2d.forward
    try:
        yield
    finally:
        nn.SyncBatchNorm.forward = forward


def called_together(
    function: Callable[..., None] | None,
    group: dist.ProcessGroup | None,
    device: torch.device | str,
) -> Callable[..., None]:
    """Return a callback that all ranks call at once, and that fails on all where it does on one.

    Args:
        function: what is called; None, which it may be on some ranks only, calls nothing.
        group: the ranks; None where there is one process.
        device: device of the collective.
    """

    def called(*arguments: Any) -> None:
        with _ending_all(group, device):
            if function is not None:
                function(*arguments)

    return called


def in_lockstep(
    batches: Iterable[Any],
    group: dist.ProcessGroup | None,
    device: torch.device | str,
    where: str,
    *,
    steps: int | None = None,
) -> Iterator[Any]:
    """Yield batches, so that what fails on one rank as they are read ends all.

    Args:
        batches: of this rank.
        group: the ranks; None where there is one process.
        device: device of the collectives.
        where: which batches they are, as in "in epoch 3".
        steps: how many are read so; None all.

    Raises:
        OtherRankError: if the batches of another rank end with an error.
        ValueError: if a rank has fewer batches than rank 0, or more.
    """
    batches = iter(batches)
    for step in count():
        if group is None or step == steps:
            break
        batch, _ = advanced(batches, step, group, device, where)
        if batch is END:
            return
        yield batch
    yield from batches


def advanced(
    batches: Iterator[Any],
    step: int,
    group: dist.ProcessGroup,
    device: torch.device | str,
    where: str,
    state: Sequence[float] = (),
) -> tuple[Any, list[list[float]]]:
    """Return this rank's next batch, `END` after the last, and the state of each rank.

    Args:
        batches: as for `in_lockstep`.
        step: how many there were before.
        group: as for `in_lockstep`.
        device: as for `in_lockstep`.
        where: as for `in_lockstep`.
        state: numbers of this rank.

    Raises:
        OtherRankError: as `in_lockstep` does.
        ValueError: as `in_lockstep` does.
    """
    batch, failed = END, None
    try:
        batch = next(batches, END)
    except Exception as error:  # of any kind, since it is the user's loader
        failed = error
    got = -1.0 if failed is not None else float(batch is not END)
    rows = _gathered_beside(failed, [got, *state], device, group)
    if any(row[0] < 0 for row in rows):
        _raise_on_all(failed, group, device)
    has_one = [bool(row[0]) for row in rows]
    if len(set(has_one)) > 1:
        other = has_one.index(not has_one[0])
        few, many = (other, 0) if has_one[0] else (0, other)
        raise ValueError(
            f"rank {few} has {step} batches {where} and rank {many} has more; give every rank the "
            "same number of batches, as DistributedSampler and effconv-data do"
        )
    return batch, [row[1:] for row in rows]


def _raise_on_all(
    failed: Exception | None, group: dist.ProcessGroup | None, device: torch.device | str
) -> None:
    """Raise this rank's own error, or where it has none, that another rank has one."""
    if group is None:
        if failed is not None:
            raise failed
        return
    # Of numbers, since collectives of objects run on the current GPU, and not on a rank's own.
    rows = _gathered_beside(failed, [float(failed is not None)], device, group)
    ranks = [rank for rank, (flag,) in enumerate(rows) if flag]
    if ranks:
        codes = [float(ord(letter)) for letter in _words_of(failed).ljust(MOST_SAID)]
        rows = _gathered_beside(failed, codes, device, group)
    if failed is not None:
        raise failed
    if ranks:
        words = "".join(chr(int(code)) for code in rows[ranks[0]]).rstrip()
        raise OtherRankError(f"rank {ranks[0]} has failed ({words}); see what it says")


def _gathered_beside(
    failed: Exception | None,
    values: Sequence[float],
    device: torch.device | str,
    group: dist.ProcessGroup,
) -> list[list[float]]:
    """Return what `gathered` does; what has failed on this rank is said, whatever the others do."""
    if failed is None:
        return gathered(values, device, group)
    waiting = threading.Timer(PATIENCE, logger.warning, ("%s; waits for others", _words_of(failed)))
    waiting.daemon = True
    waiting.start()
    try:
        return gathered(values, device, group)
    except Exception:  # the others are gone, or in a collective of the user's code
        pass
    finally:
        waiting.cancel()
    raise failed  # here, where it keeps its own cause


def _words_of(failed: Exception | None) -> str:
    """Return an error's class and message, or what is left of them."""
    if failed is None:
        return ""
    try:
        return f"{type(failed).__name__}: {failed}"[:MOST_SAID]
    except Exception:  # it is a class of the user's own
        return type(failed).__name__[:MOST_SAID]


def device_of(network: Any) -> torch.device:
    """Return the device of a network's first parameter; the CPU where there is none."""
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def gathered(
    values: Sequence[float], device: torch.device | str, group: dist.ProcessGroup
) -> list[list[float]]:
    """Return the values of all ranks, one row each."""
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    rows = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(rows, mine, group=group)
    return torch.stack(rows).tolist()
