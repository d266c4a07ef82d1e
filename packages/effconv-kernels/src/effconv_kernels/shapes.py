"""Shapes of kernels: their taps along 1 to 3 axes, and the soft sizes that rule these."""

from collections.abc import Iterable, Sequence
from math import isqrt, prod

from torch import Tensor

from effconv_kernels.validation import LIMIT, counts_of


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
