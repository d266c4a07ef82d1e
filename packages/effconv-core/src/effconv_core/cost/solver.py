"""The plan nearest to soft sizes within the budgets: a multiple-choice knapsack problem."""

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import scipy

from effconv_core.cost.base import Cost
from effconv_core.cost.budget import Constraint
from effconv_core.scalars import in_figures
from effconv_core.space.search_space import SizeSpace, TiedSizes

ALL_TRIED = 1 << 16
"""Number of plans up to which each is tried: SciPy's solver takes longer to begin."""


class Table(NamedTuple):
    """The C choices of sizes that are chosen together, and what each costs in each budget."""

    choices: list[tuple[int, ...]]
    costs: np.ndarray
    """`(C, budgets)`, whole numbers."""
    distances: np.ndarray
    """`(C,)`, sum of (s - v)^2."""


def nearest_plan(
    constraints: Sequence[Constraint], soft_sizes: Sequence[float], space: SizeSpace
) -> list[int]:
    """Return the allowed sizes nearest to soft sizes whose costs are within all constraints.

    Plain rounding is kept where it is within. Otherwise the plan is the one with the least sum of
    (s - v)^2: a small change falls on the sizes whose soft values are nearest to another size, and
    a large one is spread over the layers.

    Args:
        constraints: at least one.
        soft_sizes: S soft sizes v.
        space: the layers and their allowed sizes.

        Raises:
            ValueError: if no plan is within the constraints; the message says what is near.
    """
    rounded = space.rounded(soft_sizes)
    if all(c.low <= c.cost(rounded) <= c.high for c in constraints):
        return rounded
    costs = [constraint.cost for constraint in constraints]
    tables = [_table(costs, tied, soft_sizes, space) for tied in space.units]
    ends = [(constraint.low, constraint.high) for constraint in constraints]
    chosen = _least(costs, tables, ends, [table.distances for table in tables])
    if chosen is None:
        raise ValueError(_refusal(constraints, tables))
    sizes = [0] * len(space.ranges)
    for tied, table, choice in zip(space.units, tables, chosen, strict=True):
        for entries, size in zip(tied.entries, table.choices[choice], strict=True):
            for entry in entries:
                sizes[entry] = size
    return sizes


def _table(
    costs: Sequence[Cost], tied: TiedSizes, soft_sizes: Sequence[float], space: SizeSpace
) -> Table:
    wanted = [soft_sizes[entries[0]] for entries in tied.entries]
    nearest: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
    for choice in product(tied.allowed, repeat=len(tied.entries)):
        sizes = {e: s for es, s in zip(tied.entries, choice, strict=True) for e in es}
        spent = tuple(sum(cost.part(layer, sizes) for layer in tied.layers) for cost in costs)
        distance = sum((size - v) ** 2 for size, v in zip(choice, wanted, strict=True))
        # Of choices of equal cost, such as 3x5 and 5x3, only the nearest can be in a plan.
        nearest[spent] = min(nearest.get(spent, (math.inf, ())), (distance, choice))
    distances, choices = zip(*nearest.values(), strict=True)
    return Table(list(choices), np.array(list(nearest)), np.array(distances))


def _least(
    costs: Sequence[Cost],
    tables: Sequence[Table],
    ends: Sequence[tuple[float, float]],
    values: Sequence[np.ndarray],
) -> list[int] | None:
    """Return the choice from each table with the least sum of values, None where there is none.

    Args:
        costs: in as many budgets as there are `ends`; the tables may have more columns.
        tables: one for each group of tied sizes.
        ends: least and largest cost in each budget.
        values: for each table the number of each of its choices that is added up.
    """
    counts = [len(table.choices) for table in tables]
    if math.prod(counts) <= ALL_TRIED:
        return _least_of_all(costs, tables, ends, values)
    firsts = np.cumsum([0, *counts])
    one_each = scipy.sparse.csr_array(np.repeat(np.eye(len(tables)), counts, axis=1))
    rows, lows, highs = [], [], []
    spent = np.concatenate([table.costs for table in tables])
    for column, (low, high) in enumerate(ends):
        # Whole numbers in the costs' greatest common unit, of which half a one divides costs that
        # are within from those outside.
        unit = math.gcd(*(int(cost) for cost in spent[:, column])) or 1
        constant = costs[column].constant
        rows.append(spent[:, column] // unit)
        lows.append(low if low == -math.inf else math.ceil((low - constant) / unit) - 0.5)
        highs.append(high if high == math.inf else math.floor((high - constant) / unit) + 0.5)
    limits = [scipy.optimize.LinearConstraint(one_each, 1, 1)]
    if rows:
        scale = np.array([max(1, np.abs(row).max()) for row in rows])
        limits.append(
            scipy.optimize.LinearConstraint(
                scipy.sparse.csr_array(np.array(rows) / scale[:, None]), lows / scale, highs / scale
            )
        )
    objective = np.concatenate(values)
    size = np.abs(objective).max() or 1
    while True:
        found = scipy.optimize.milp(
            objective / size,
            integrality=np.ones(len(objective)),
            bounds=scipy.optimize.Bounds(0, 1),
            constraints=limits,
            options={"mip_rel_gap": 0},
        )
        if found.status == 2:
            return None
        if found.x is None:
            raise RuntimeError(
                f"the nearest plan was not found; SciPy's solver says: {found.message}"
            )
        parts = np.split(found.x, firsts[1:-1])
        chosen = [int(np.argmax(part)) for part in parts]
        total = [
            costs[c].constant
            + sum(int(table.costs[i, c]) for table, i in zip(tables, chosen, strict=True))
            for c in range(len(ends))
        ]
        if all(low <= t <= high for t, (low, high) in zip(total, ends, strict=True)):
            return chosen
        # The solver's tolerance let this plan through: it is excluded, and nothing else.
        cut = np.zeros((1, len(objective)))
        cut[0, firsts[:-1] + chosen] = 1
        limits.append(
            scipy.optimize.LinearConstraint(scipy.sparse.csr_array(cut), -np.inf, len(tables) - 1)
        )


def _least_of_all(
    costs: Sequence[Cost],
    tables: Sequence[Table],
    ends: Sequence[tuple[float, float]],
    values: Sequence[np.ndarray],
) -> list[int] | None:
    """Return what `_least` does, by the sums of every plan."""
    sums = _sums(values)
    within = np.ones(sums.shape, bool)
    for column, (low, high) in enumerate(ends):
        total = costs[column].constant + _sums([table.costs[:, column] for table in tables])
        within &= (low <= total) & (total <= high)
    if not within.any():
        return None
    place, chosen = int(np.where(within, sums, np.inf).argmin()), []
    for table in reversed(tables):
        place, choice = divmod(place, len(table.choices))
        chosen.append(choice)
    return chosen[::-1]


def _sums(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of one number of each part for every way to choose them, the last fastest."""
    sums = parts[0]
    for part in parts[1:]:
        sums = np.add.outer(sums, part).ravel()
    return sums


def _refusal(constraints: Sequence[Constraint], tables: Sequence[Table]) -> str:
    *others, last = constraints
    if others:
        wanted, kept = " and ".join(map(str, constraints)), " and ".join(map(str, others))
        ends = _range_of_the_last(constraints, tables)
        if ends is None:
            return f"no plan costs {wanted} at once, so change one of the budgets"
        return (
            f"no plan costs {wanted} at once: those of {kept} cost from about {ends[0]:,} to "
            f"{ends[1]:,} {last.cost.counts}, so pass a budget within that range or change another"
        )
    nearest = " and ".join(f"{cost:,}" for cost in _costs_around(last, tables))
    return (
        f"no plan costs within {last.tolerance:.1%} of the budget {in_figures(last.budget.amount)} "
        f"{last.cost.counts}: with {len(tables)} searched layer(s) or group(s) the nearest cost "
        f"{nearest}, so pass such a budget or raise the tolerance"
    )


def _costs_around(constraint: Constraint, tables: Sequence[Table]) -> list[int]:
    """Return what the plans cost that are nearest to a budget, below it and above."""
    amount, cost = constraint.budget.amount, constraint.cost
    found = []
    for ends, sign in (((-math.inf, amount), -1), ((amount, math.inf), 1)):
        chosen = _least([cost], tables, [ends], [sign * table.costs[:, 0] for table in tables])
        if chosen is not None:
            found.append(_spent(cost, tables, chosen, 0))
    return found


def _range_of_the_last(
    constraints: Sequence[Constraint], tables: Sequence[Table]
) -> tuple[int, int] | None:
    """Return the least and the most that plans within the other constraints cost in the last."""
    *others, last = constraints
    costs, ends, found = [c.cost for c in others], [(c.low, c.high) for c in others], []
    for sign in (1, -1):
        chosen = _least(costs, tables, ends, [sign * table.costs[:, -1] for table in tables])
        if chosen is None:
            return None
        found.append(_spent(last.cost, tables, chosen, -1))
    return found[0], found[1]


def _spent(cost: Cost, tables: Sequence[Table], chosen: Sequence[int], column: int) -> int:
    own = (int(t.costs[i, column]) for t, i in zip(tables, chosen, strict=True))
    return cost.constant + sum(own)
