"""Small integer tables on the device, which the kernels look up."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from effconv_kernels.device_tables import Table, on_device, ready

ROWS = 64
"""Rows of the map per program iteration."""
CHUNKS = 32
"""Largest number of programs of the backward pass that share the rows of a layer's map."""


class Tables(NamedTuple):
    """Lookup tables of the kernels, on the device."""

    layers: Table
    """`(L, 8)`: size, first row of the states, first row of the map, start in the buffer, rows of
    the map, first row of the sums, c_in, rows of a chunk."""
    chunks: Table
    """`(chunks, 3)`: layer, first row of the map and first row of the sums of each chunk."""
    sums: int
    """Rows of the sums of all chunks."""


@lru_cache(maxsize=64)
def tables(
    sizes: tuple[int, ...], counts: tuple[int, ...], inner: tuple[int, ...], device: torch.device
) -> Tables:
    """Build the tables; they are cached, so that a repeated call copies nothing."""

    def starts(lengths: list[int]) -> list[int]:
        return [0, *accumulate(lengths)]

    taps = [size * size for size in sizes]
    lengths = [ROWS * triton.cdiv(count, ROWS * CHUNKS) for count in counts]
    in_layer = [triton.cdiv(*pair) for pair in zip(counts, lengths, strict=True)]
    sums = starts([t * n for t, n in zip(taps, in_layer, strict=True)])
    values = starts([t * count for t, count in zip(taps, counts, strict=True)])
    firsts = starts(taps), starts(list(counts)), values
    layers = list(zip(sizes, *firsts, counts, sums, inner, lengths, strict=False))
    chunks = [
        (layer, chunk * lengths[layer], sums[layer] + chunk * taps[layer])
        for layer, n in enumerate(in_layer)
        for chunk in range(n)
    ]
    return Tables(on_device(layers, device), on_device(chunks, device), sums[-1])


@lru_cache(maxsize=64)
def blocks(counts: tuple[int, ...], device: torch.device) -> Table:
    """Return layer and first row of each block of ROWS map rows, `(blocks, 2)`."""
    rows = [(layer, row) for layer, count in enumerate(counts) for row in range(0, count, ROWS)]
    return on_device(rows, device)


def look_up(
    sizes: Sequence[int], counts: Sequence[int], inner: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return an assembly's layers, chunks and blocks, and the number of rows of its sums."""
    lookup = tables(tuple(sizes), tuple(counts), tuple(inner), device)
    row_blocks = blocks(tuple(counts), device)
    return *map(ready, (lookup.layers, lookup.chunks, row_blocks)), lookup.sums
