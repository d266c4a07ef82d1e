"""Small integer tables on the device, which the kernels look up."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from effconv_kernels.device_tables import Table, on_device, ready
from effconv_kernels.shapes import taps_of

ROWS = 64
"""Rows of the map per program iteration."""
CHUNKS = 1024
"""About this many programs of the backward pass share the rows of all maps, in equal chunks."""


class Tables(NamedTuple):
    """Lookup tables of the kernels; on the device, as tables or as values ready to be read."""

    layers: Table | Tensor
    """`(L, 14)`: taps, first row of the states, first row of the map, start in the buffer, rows of
    the map, first row of the sums, c_in, rows of a chunk; taps along three axes; and of each of
    them the index of its soft size, or -1."""
    chunks: Table | Tensor
    """`(chunks, 3)`: layer, first row of the map and first row of the sums of each chunk."""
    blocks: Table | Tensor
    """`(blocks, 2)`: layer and first row of each block of ROWS map rows."""
    sums: int
    """Rows of the sums of all chunks."""
    values: int
    """Values of all kernels."""
    most: int
    """Taps of the kernel that has the most."""


@lru_cache(maxsize=64)
def _tables(
    shapes: tuple[int, ...],
    counts: tuple[int, ...],
    inner: tuple[int, ...],
    rules: tuple[int, ...],
    device: torch.device,
) -> Tables:
    """Build the tables; they are cached, so that a repeated call copies nothing."""

    def starts(lengths: list[int]) -> list[int]:
        return [0, *accumulate(lengths)]

    def triples(values: tuple[int, ...]) -> list[tuple[int, ...]]:
        return list(zip(values[::3], values[1::3], values[2::3], strict=True))

    taps = taps_of(shapes)
    lengths = [ROWS * triton.cdiv(sum(counts), ROWS * CHUNKS)] * len(counts)
    in_layer = [triton.cdiv(*pair) for pair in zip(counts, lengths, strict=True)]
    sums = starts([t * n for t, n in zip(taps, in_layer, strict=True)])
    values = starts([t * count for t, count in zip(taps, counts, strict=True)])
    firsts = starts(taps), starts(list(counts)), values
    columns = taps, *firsts, counts, sums, inner, lengths, triples(shapes), triples(rules)
    layers = [(*entry[:8], *entry[8], *entry[9]) for entry in zip(*columns, strict=False)]
    chunks = [
        (layer, chunk * lengths[layer], sums[layer] + chunk * taps[layer])
        for layer, n in enumerate(in_layer)
        for chunk in range(n)
    ]
    blocks = [(layer, row) for layer, count in enumerate(counts) for row in range(0, count, ROWS)]
    on = (on_device(rows, device) for rows in (layers, chunks, blocks))
    return Tables(*on, sums[-1], values[-1], max(taps))


def look_up(
    shapes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    rules: Sequence[int],
    device: torch.device,
) -> Tables:
    """Return an assembly's tables, ready to be read by the current stream."""
    found = _tables(tuple(shapes), tuple(counts), tuple(inner), tuple(rules), device)
    return Tables(*map(ready, found[:3]), *found[3:])


@lru_cache(maxsize=64)
def _owners(rules: tuple[int, ...], soft_sizes: int, device: torch.device) -> Table:
    owned = [
        [axis for axis, rule in enumerate(rules) if rule == soft] for soft in range(soft_sizes)
    ]
    starts = accumulate(map(len, owned), initial=soft_sizes + 1)
    return on_device([*starts, *(axis for axes in owned for axis in axes)], device)


def owners_of(rules: Sequence[int], soft_sizes: int, device: torch.device) -> Tensor:
    """Return where the axes that each soft size rules begin and end in this table, and these.

    An axis is numbered three times its layer, plus its place.
    """
    return ready(_owners(tuple(rules), soft_sizes, device))
