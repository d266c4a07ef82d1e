"""Passes of networks, and how two of them differ."""

import copyreg
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

TOLERANCE = 1e-3
"""Difference relative to the largest output; that of two programs for one sum is less."""
COARSE = 3e-2
"""The same, where sums have another order, or in fewer than 32 bits."""


class Run(NamedTuple):
    """A run of a searched layer; what it was given and gave is known by its mean magnitude."""

    layer: str
    given: Tensor
    gave: Tensor
    shapes: tuple[torch.Size, torch.Size]


class Pass(NamedTuple):
    """What a network gave, and the runs of its searched layers, in order."""

    outputs: Any
    loss: Tensor | None
    """None without a criterion."""
    runs: list[Run]


def differ(wanted: Pass, given: Pass, tolerance: float) -> str | None:
    """Return how passes differ, the earliest layer first; None where they agree.

    Args:
        wanted: of the network.
        given: of what takes its place.
        tolerance: difference of two tensors, relative to the largest value.
    """
    own, others = leaves(wanted.outputs), leaves(given.outputs)
    if [_kind(leaf) for leaf in own] != [_kind(leaf) for leaf in others]:
        reason = f"its outputs are {_kinds(others)} where {_kinds(own)} were searched"
    elif not all(_close(a, b, tolerance) for a, b in zip(own, others, strict=True)):
        reason = "its outputs are others"
    elif wanted.loss is not None and not _close(wanted.loss, given.loss, tolerance):
        reason = f"its loss is {given.loss:.4g} where {wanted.loss:.4g} was searched"
    else:
        reason = None  # a branch that begins at zero, as residual ones may, hides its layers
    for expected, met in zip(wanted.runs, given.runs, strict=False):
        before = (
            _close(expected.given, met.given, tolerance) and expected.shapes[0] == (met.shapes[0])
        )
        after = _close(expected.gave, met.gave, tolerance) and expected.shapes == met.shapes
        if not (before and after and expected.layer == met.layer):
            reason = reason or "its layers compute something else"
            return f"{reason}, first {'at' if before else 'on the way to'} layer {met.layer!r}"
    if reason and len(wanted.runs) != len(given.runs):
        ran = {run.layer for run in given.runs}
        idle = [name for name in dict.fromkeys(r.layer for r in wanted.runs) if name not in ran]
        reason += f", and it does not run {idle}" if idle else ""
    return reason


def leaves(value: Any, seen: set[int] | None = None) -> list[Any]:
    """Return the tensors, and whatever else holds nothing, in order, also of attributes."""
    seen = set() if seen is None else seen
    if isinstance(value, Tensor | str | bytes | nn.Module | type) or callable(value):
        return [value]
    if isinstance(value, Mapping):
        return [leaf for key in value for leaf in (str(key), *leaves(value[key], seen))]
    if isinstance(value, Sequence):
        return [leaf for item in value for leaf in leaves(item, seen)]
    held = {name: getattr(value, name, None) for name in copyreg._slotnames(type(value))}
    held |= getattr(value, "__dict__", {})
    if not held or id(value) in seen:
        return [value]
    seen.add(id(value))
    return [leaf for name in held for leaf in (name, *leaves(held[name], seen))]


def _kind(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.dtype
    return leaf if isinstance(leaf, str) else type(leaf)


def _kinds(leaves: Sequence[Any]) -> str:
    tensors = [str(tuple(leaf.shape)) for leaf in leaves if isinstance(leaf, Tensor)]
    return "of shape " + " and ".join(tensors[:3]) if tensors else "no tensor"


def magnitude(values: Tensor) -> Tensor:
    """Return the mean absolute value of a tensor, a scalar."""
    return values.abs().mean(dtype=torch.float64 if not values.is_complex() else None)


def tolerance_for(wanted: Pass, least: float) -> float:
    """Return the tolerance of a pass: the least one, or `COARSE` for outputs of few bits."""
    tensors = [leaf for leaf in leaves(wanted.outputs) if isinstance(leaf, Tensor)]
    short = any(t.is_floating_point() and torch.finfo(t.dtype).bits < 32 for t in tensors)
    return COARSE if short else least


def _close(wanted: Any, given: Any, tolerance: float) -> bool:
    if not isinstance(wanted, Tensor) or not wanted.numel():
        return True
    if not (wanted.is_floating_point() or wanted.is_complex()):
        wanted, given = wanted.double(), given.double()
    wanted, given = wanted.detach(), given.detach()
    finite = wanted.isfinite()
    if not torch.equal(finite, given.isfinite()):
        return False
    wanted, given = wanted[finite], given[finite]
    if not wanted.numel():
        return True
    return bool((wanted - given).abs().max() <= tolerance * wanted.abs().max() + 1e-12)
