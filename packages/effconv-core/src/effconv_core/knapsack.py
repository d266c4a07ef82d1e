"""The plan nearest to soft sizes among those within the budgets."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from effconv_core.budget import Bound, Cost
from effconv_core.space import SizeSpace, Unit

CELLS = 40_000  # partial plans followed where there are several budgets


def nearest_plan(
    bounds: Sequence[Bound], soft_sizes: Sequence[float], space: SizeSpace
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
    low = np.array([bound.low for bound in bounds])
    high = np.array([bound.high for bound in bounds])
    tables = [_table([b.cost for b in bounds], u, soft_sizes, space) for u in space.units]
    widths = _widths(bounds, [costs for _, costs, _ in tables])
    # What the units still to come cost at least and at most.
    least = _still_to_come([costs.min(axis=0) for _, costs, _ in tables])
    most = _still_to_come([costs.max(axis=0) for _, costs, _ in tables])
    # One row for each reachable cell of costs: the exact costs, and the distance so far.
    costs = np.array([[bound.cost.constant for bound in bounds]])
    distances, history = np.zeros(1), []
    for place, (choices, own_costs, own_distances) in enumerate(tables):
        next_costs = (costs[:, None] + own_costs).reshape(-1, len(bounds))
        next_distances = (distances[:, None] + own_distances).ravel()
        can_end_inside = (next_costs + least[place] <= high).all(axis=1)
        can_end_inside &= (next_costs + most[place] >= low).all(axis=1)
        rows = np.flatnonzero(can_end_inside)
        cells = next_costs[rows] // widths
        nearest_first = np.lexsort((next_distances[rows], *cells.T))
        cells = cells[nearest_first]
        new = np.ones(len(rows), dtype=bool)
        new[1:] = (cells[1:] != cells[:-1]).any(axis=1)
        kept = rows[nearest_first[new]]
        history.append((kept, choices))
        costs, distances = next_costs[kept], next_distances[kept]
    if not len(costs):
        raise ValueError(_refusal(bounds, len(space.layers)))
    row = int(np.argmin(distances))
    sizes = [0] * len(space.ranges)
    for (kept, choices), unit in zip(reversed(history), reversed(space.units), strict=True):
        row, choice = divmod(int(kept[row]), len(choices))
        for places, size in zip(unit.entries, choices[choice], strict=True):
            for entry in places:
                sizes[entry] = size
    return sizes


def _table(
    costs: Sequence[Cost], unit: Unit, soft_sizes: Sequence[float], space: SizeSpace
) -> tuple[list[tuple[int, ...]], np.ndarray, np.ndarray]:
    """Give a unit's choices, what each costs `(choices, budgets)` and how far it is from v."""
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
    return (
        [choice for _, choice in nearest.values()],
        np.array(list(nearest)),
        np.array([distance for distance, _ in nearest.values()]),
    )


def _widths(bounds: Sequence[Bound], tables: Sequence[np.ndarray]) -> np.ndarray:
    """Give how far costs may lie apart and still be in one cell, for each budget."""
    finest = [
        math.gcd(*(int(n) for table in tables for n in table[:, k])) for k in range(len(bounds))
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


def _refusal(bounds: Sequence[Bound], layers: int) -> str:
    remedy = "so raise the tolerance or change the budget"
    if len(bounds) > 1:
        wanted = " and ".join(map(str, bounds))
        return f"no plan of the {layers} searched layer(s) costs {wanted} at once, {remedy}"
    (bound,) = bounds
    if bound.budget.at_most:
        return f"no plan of the {layers} searched layer(s) costs {bound}, {remedy}"
    return (
        f"no plan costs within {bound.tolerance:.1%} of the budget {bound.budget.amount:,.0f} "
        f"{bound.cost.counts}: the {layers} searched layer(s) allow too few different costs, "
        f"{remedy}"
    )
