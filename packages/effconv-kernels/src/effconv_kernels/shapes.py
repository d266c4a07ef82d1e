"""Shapes of kernels: their taps along 1 to 3 axes, and the soft sizes that rule these."""

import marshal
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from math import isqrt, prod
from typing import NamedTuple

import torch
from torch import Tensor

from effconv_kernels.validation import LIMIT, counts_of


class Plan(NamedTuple):
    """The integers of an assembly, one or a triple for each layer."""

    outer: list[int]
    """c_out."""
    inner: list[int]
    """c_in."""
    counts: list[int]
    """c_out c_in."""
    shapes: list[tuple[int, ...]]
    """Taps along each of 1 to 3 axes."""
    values: list[int]
    """Values of the kernel."""
    taps: int
    """Taps of all kernels."""
    flat: list[int]
    """`(3 L)`: taps along three axes; missing ones are in front and 1."""
    rules: list[int]
    """`(3 L)`: index of each axis' soft size, or -1."""


_plans: OrderedDict[tuple, Plan] = OrderedDict()


def plan_of(
    operator: str,
    sizes: Sequence[int | Sequence[int]] | Tensor,
    channels: Iterable[tuple[int, int]],
    axes: Sequence[Sequence[int | None]] | None,
    soft_count: int | None,
) -> Plan:
    """Check the integers of an assembly and return what follows from them.

    Arguments are those of `assemble_kernels`, and the number of soft sizes, None without a mask.
    The last plans are kept, since the checks take longer than a small assembly.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: if the integers do not fit together.
    """
    if torch.compiler.is_compiling():
        return _made(operator, sizes, channels, axes, soft_count)
    try:
        # Unlike tuples, 2, 2.0 and True have different bytes. The version has no references, which
        # would depend on who else holds an object.
        key = soft_count, marshal.dumps((sizes, channels, axes), 2)
    except ValueError:  # a tensor, or something else that is no list of integers
        return _made(operator, sizes, channels, axes, soft_count)
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = _made(operator, sizes, channels, axes, soft_count)
        if len(_plans) > 256:
            _plans.popitem(last=False)
    return plan


def _made(
    operator: str,
    sizes: Sequence[int | Sequence[int]] | Tensor,
    channels: Iterable[tuple[int, int]],
    axes: Sequence[Sequence[int | None]] | None,
    soft_count: int | None,
) -> Plan:
    outer, inner = channels_of(operator, channels)
    by_layer = soft_count is not None and axes is None
    shapes = shapes_of(operator, sizes, soft_count if by_layer else len(outer))
    if len(outer) != len(shapes):
        raise ValueError(
            f"{operator}: channels has length {len(outer)} for {len(shapes)} layers; "
            "pass one entry for each layer"
        )
    rules = axes_of(operator, axes, shapes, soft_count)
    counts = [c_out * c_in for c_out, c_in in zip(outer, inner, strict=True)]
    taps = [prod(shape) for shape in shapes]
    values = [count * tap for count, tap in zip(counts, taps, strict=True)]
    flat = [extent for shape in shapes for extent in (1, 1, *shape)[-3:]]
    return Plan(outer, inner, counts, shapes, values, sum(taps), flat, rules)


def shapes_of(
    operator: str, sizes: Sequence[int | Sequence[int]] | Tensor, layers: int
) -> list[tuple[int, ...]]:
    """Return each kernel's taps along its axes: s x s of an integer s.

    Raises:
        TypeError: if they are no sequence of integers or of sequences of integers.
        ValueError: if there is not one for each layer, or one is below 1 or has too many taps.
    """
    entries = sizes
    if isinstance(sizes, Iterable) and not isinstance(sizes, Tensor | str):
        entries = list(sizes)
        plain = [1 if isinstance(entry, Sequence) else entry for entry in entries]
    else:
        plain = sizes
    shapes: list[tuple[int, ...]] = [
        (size, size) for size in counts_of(operator, "sizes", plain, layers, isqrt(LIMIT))
    ]
    for layer, entry in enumerate(entries if plain is not sizes else ()):
        if not isinstance(entry, Sequence):
            continue
        if isinstance(entry, str) or not 1 <= len(entry) <= 3:
            raise ValueError(
                f"{operator}: sizes[{layer}] is {entry!r}; a kernel has 1 to 3 axes, so pass an "
                "integer s for s x s taps, or the taps along each of 1 to 3 axes"
            )
        shape = tuple(counts_of(operator, f"sizes[{layer}]", entry, len(entry)))
        if prod(shape) > LIMIT:
            raise ValueError(
                f"{operator}: sizes[{layer}] is {shape}, which are {prod(shape):,} taps; a kernel "
                f"may have at most {LIMIT:,}, so pass smaller ones"
            )
        shapes[layer] = shape
    return shapes


def channels_of(operator: str, channels: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Return c_out and c_in of each layer.

    Raises:
        TypeError: if they are no sequence, or not of integers.
        ValueError: if one is no pair, or below 1, or there are none.
    """
    if not isinstance(channels, Iterable):
        raise TypeError(
            f"{operator}: channels is a {type(channels).__name__}; pass a sequence of pairs "
            "(c_out, c_in)"
        )
    channels = list(channels)
    if not channels:
        raise ValueError(f"{operator}: channels is empty; pass a pair (c_out, c_in) for each layer")
    for layer, pair in enumerate(channels):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(
                f"{operator}: channels[{layer}] is {pair!r}; pass a pair (c_out, c_in) for each "
                "layer"
            )
    outer = counts_of(operator, "channels (out)", [c for c, _ in channels], len(channels))
    inner = counts_of(operator, "channels (in)", [c for _, c in channels], len(channels))
    return outer, inner


def axes_of(
    operator: str,
    axes: Sequence[Sequence[int | None]] | None,
    shapes: Sequence[tuple[int, ...]],
    soft_count: int | None,
) -> list[int]:
    """Return for each layer and each of three axes the index of its soft size, or -1.

    Args:
        operator: named in errors.
        axes: as in `assemble_kernels`.
        shapes: taps of each layer along its axes.
        soft_count: the number of soft sizes, or None if there is no mask.

    Raises:
        ValueError: if axes do not fit the kernels or the soft sizes.
    """
    if soft_count is None:
        if axes is not None:
            raise ValueError(
                f"{operator}: soft_sizes is None and axes is {axes!r}; without a mask no soft size "
                "rules an axis, so pass axes=None, or soft sizes"
            )
        return [-1] * (3 * len(shapes))
    if axes is None:
        axes = [[layer] * len(shape) for layer, shape in enumerate(shapes)]
    elif len(axes) != len(shapes):
        raise ValueError(
            f"{operator}: axes has length {len(axes)} for {len(shapes)} layers; pass one entry for "
            "each layer"
        )
    found = []
    for layer, (ruled, shape) in enumerate(zip(axes, shapes, strict=True)):
        if len(ruled) != len(shape) or not all(
            axis is None or (type(axis) is int and 0 <= axis < soft_count) for axis in ruled
        ):
            raise ValueError(
                f"{operator}: axes[{layer}] is {ruled!r}; kernel {layer} has {len(shape)} axes and "
                f"there are {soft_count} soft sizes, so pass for each axis an index from 0 to "
                f"{soft_count - 1}, or None"
            )
        found += [-1] * (3 - len(shape)) + [-1 if axis is None else axis for axis in ruled]
    return found


def taps_of(shapes: Sequence[int]) -> list[int]:
    """Return the number of taps of each kernel from the taps along three axes of each."""
    return [prod(shapes[first : first + 3]) for first in range(0, len(shapes), 3)]
