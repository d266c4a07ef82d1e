"""The order in which a loop over timesteps visits the states of layers of unequal length.

States are rows, `(sum T, ...)`. The natural order is layer after layer. In the order of the loop,
rows follow timestep after timestep, each with the layers that still run, the longest first.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch

from effconv_kernels.device_tables import Table, on_device


class Ragged(NamedTuple):
    """Indices on a device, as `(L,)` or `(sum T,)` tables."""

    order: Table
    """The layers from the longest to the shortest."""
    rank: Table
    """The rank of each layer in that order."""
    natural: Table
    """For each row in the order of the loop, its row in the natural order."""
    looped: Table
    """For each row in the natural order, its row in the order of the loop."""
    layer: Table
    """For each row in the natural order, its layer."""
    first: Table
    """`(L,)`: for each layer the natural row of its first timestep."""
    active: list[int]
    """`T` numbers: layers that still run at each timestep."""
    is_sorted: bool


@lru_cache(maxsize=256)
def ragged(steps: tuple[int, ...], reverse: bool, device: torch.device) -> Ragged:
    """Build the tables; they are cached, so that a repeated call copies nothing.

    Args:
        steps: T of each layer.
        reverse: whether the first timestep of a layer is its last row.
        device: of the tables.
    """
    layers = len(steps)
    order = sorted(range(layers), key=lambda layer: -steps[layer])
    rank = sorted(range(layers), key=order.__getitem__)
    starts = [0, *accumulate(steps)]
    active = [sum(count > t for count in steps) for t in range(max(steps))]
    natural = [
        starts[layer] + (steps[layer] - 1 - t if reverse else t)
        for t, count in enumerate(active)
        for layer in order[:count]
    ]
    looped = sorted(range(len(natural)), key=natural.__getitem__)
    layer = [index for index, count in enumerate(steps) for _ in range(count)]
    first = [end - 1 for end in starts[1:]] if reverse else starts[:-1]
    tables = (on_device(rows, device) for rows in (order, rank, natural, looped, layer, first))
    return Ragged(*tables, active, order == list(range(layers)))


def last_rows(steps: Sequence[int], reverse: bool) -> list[int]:
    """Return for each layer the natural row of its last timestep."""
    ends = accumulate(steps)
    return [end - count if reverse else end - 1 for end, count in zip(ends, steps, strict=True)]


@lru_cache(maxsize=64)
def last_table(steps: tuple[int, ...], reverse: bool, device: torch.device) -> Table:
    """Copy `last_rows` to a device; cached, so that a repeated call copies nothing."""
    return on_device(last_rows(steps, reverse), device)
