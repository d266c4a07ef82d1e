"""The plan nearest to soft sizes among those within the budgets."""

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from effconv_core.budget import Constraint
from effconv_core.cost_base import Cost
from effconv_core.space import SizeSpace, TiedSizes

CELLS = 40_000  # partial plans followed where there are several budgets


def nearest_plan(
    bounds: Sequence[Constraint], soft_sizes: Sequence[float], space: SizeSpace
) -> list[int]:
    """Give the allowed sizes nearest to soft sizes whose costs are within all bounds.

    Plain rounding is kept where it is within. Otherwise the plan is the one with the least sum of
    |s - v|, so the sizes that change are those whose soft values are nearest to the other
    size. It is a knapsack, solved by dynamic programming over cost; costs are kept exactly, and
    of plans whose costs differ by little (a 500th of the tolerance with one budget) only the
    nearest is followed. With several budgets the steps are coarser, and a plan may be missed that
    only just exists.

    Args:
        bounds: at least one.
        soft_sizes: S soft sizes v.
        space: the layers and what sizes they may have.

    Raises:
        ValueError: if no plan is within the bounds.
    """
    rounded = space.rounded(soft_sizes)
    if all(bound.low <= bound.cost(rounded) <= bound.high for bound in bounds):
        return rounded
    tables = [_table([b.cost for b in bounds], u, soft_sizes, space) for u in space.units]
    chosen = _least(bounds, tables)
    if chosen is None:
        raise ValueError(_refusal(bounds, tables))
    sizes = [0] * len(space.ranges)
    for unit, table, choice in zip(space.units, tables, chosen, strict=True):
        for places, size in zip(unit.entries, table.choices[choice], strict=True):
            for entry in places:
                sizes[entry] = size
    return sizes


class Table(NamedTuple):
    """What a unit can be: its choices, what each costs in each budget, and what is minimised."""

    choices: list[tuple[int, ...]]
    costs: np.ndarray
    """`(choices, budgets)`, whole numbers."""
    values: np.ndarray
    """`(choices,)`; how far each is from the soft sizes."""


def _least(
    bounds: Sequence[Constraint],
    tables: Sequence[Table],
    ends: tuple[float, float] | None = None,
) -> list[int] | None:
    """Give the choice of each unit for which the costs are within the bounds and the values least.

    None where no costs are within. With `ends`, the costs in each budget lie between these instead.
    """
    low = np.array([ends[0] if ends else bound.low for bound in bounds])
    high = np.array([ends[1] if ends else bound.high for bound in bounds])
    widths = _widths(bounds, tables)
    # What the units still to come cost at least and at most.
    least = _still_to_come([table.costs.min(axis=0) for table in tables])
    most = _still_to_come([table.costs.max(axis=0) for table in tables])
    # One row for each reachable cell of costs: the exact costs, and the values so far.
    costs = np.array([[bound.cost.constant for bound in bounds]])
    values, history = np.zeros(1), []
    for place, table in enumerate(tables):
        next_costs = (costs[:, None] + table.costs).reshape(-1, len(bounds))
        next_values = (values[:, None] + table.values).ravel()
        can_end_inside = (next_costs + least[place] <= high).all(axis=1)
        can_end_inside &= (next_costs + most[place] >= low).all(axis=1)
        rows = np.flatnonzero(can_end_inside)
        cells = next_costs[rows] // widths
        least_first = np.lexsort((next_values[rows], *cells.T))
        cells = cells[least_first]
        new = np.ones(len(rows), dtype=bool)
        new[1:] = (cells[1:] != cells[:-1]).any(axis=1)
        kept = rows[least_first[new]]
        history.append(kept)
        costs, values = next_costs[kept], next_values[kept]
    if not len(costs):
        return None
    row, chosen = int(np.argmin(values)), []
    for kept, table in zip(reversed(history), reversed(tables), strict=True):
        row, choice = divmod(int(kept[row]), len(table.choices))
        chosen.append(choice)
    return chosen[::-1]


def _table(
    costs: Sequence[Cost], unit: TiedSizes, soft_sizes: Sequence[float], space: SizeSpace
) -> Table:
    """List a unit's choices, what each costs and how far it is from v."""
    wanted = [soft_sizes[places[0]] for places in unit.entries]
    nearest: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
    for choice in product(unit.allowed, repeat=len(unit.entries)):
        sizes = {
            entry: size
            for places, size in zip(unit.entries, choice, strict=True)
            for entry in places
        }
        spent = tuple(sum(cost.part(layer, sizes) for layer in unit.layers) for cost in costs)
        distance = sum(abs(size - v) for size, v in zip(choice, wanted, strict=True))
        # Of choices that cost the same, as 3x5 and 5x3 may, only the nearest can be in a plan.
        nearest[spent] = min(nearest.get(spent, (math.inf, ())), (distance, choice))
    return Table(
        [choice for _, choice in nearest.values()],
        np.array(list(nearest)),
        np.array([distance for distance, _ in nearest.values()]),
    )


def _widths(bounds: Sequence[Constraint], tables: Sequence[Table]) -> np.ndarray:
    """Give how far costs may lie apart and still be in one cell, for each budget."""
    finest = [
        math.gcd(*(int(cost) for table in tables for cost in table.costs[:, k]))
        for k in range(len(bounds))
    ]
    if len(bounds) == 1:
        coarse = [int(bounds[0].budget.amount * bounds[0].tolerance / 500)]
    else:
        per_budget = CELLS ** (1 / len(bounds))
        coarse = [int(bound.high / per_budget) for bound in bounds]
    return np.array([max(pair) for pair in zip(finest, coarse, strict=True)])


def _still_to_come(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Give for each place the sum of the values after it."""
    total, sums = np.zeros_like(values[0]), []
    for value in reversed(values):
        sums.append(total)
        total = total + value
    return sums[::-1]


def _refusal(bounds: Sequence[Constraint], tables: Sequence[Table]) -> str:
    *others, last = bounds
    if others:
        wanted, kept = " and ".join(map(str, bounds)), " and ".join(map(str, others))
        ends = _range_of_the_last(bounds, tables)
        if ends is None:
            return f"no plan costs {wanted} at once, so change one of the budgets"
        return (
            f"no plan costs {wanted} at once: those of {kept} cost from about {ends[0]:,} to "
            f"{ends[1]:,} {last.cost.counts}, so pass a budget within that range or change another"
        )
    nearest = " and ".join(f"{cost:,}" for cost in _costs_around(last, tables))
    return (
        f"no plan costs within {last.tolerance:.1%} of the budget {last.budget.amount:,.0f} "
        f"{last.cost.counts}: with {len(tables)} searched layer(s) or group(s) the nearest cost "
        f"{nearest}, so pass such a budget or raise the tolerance"
    )


def _costs_around(bound: Constraint, tables: Sequence[Table]) -> list[int]:
    """Give what the plans cost that are nearest to a budget, below it and above."""
    amount, found = bound.budget.amount, []
    for ends, sign in (((-math.inf, amount), -1), ((amount, math.inf), 1)):
        by_cost = [table._replace(values=sign * table.costs[:, 0]) for table in tables]
        chosen = _least([bound], by_cost, ends)
        if chosen is not None:
            spent = sum(int(t.costs[c, 0]) for t, c in zip(tables, chosen, strict=True))
            found.append(bound.cost.constant + spent)
    return found


def _range_of_the_last(
    bounds: Sequence[Constraint], tables: Sequence[Table]
) -> tuple[int, int] | None:
    """Give the least and the most that plans within the other bounds cost in the last."""
    ends = []
    for sign in (1, -1):
        chosen = _least(
            bounds[:-1],
            [
                table._replace(costs=table.costs[:, :-1], values=sign * table.costs[:, -1])
                for table in tables
            ],
        )
        if chosen is None:
            return None
        spent = sum(int(t.costs[c, -1]) for t, c in zip(tables, chosen, strict=True))
        ends.append(bounds[-1].cost.constant + spent)
    return ends[0], ends[1]
