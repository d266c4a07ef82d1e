"""What a plan costs, the budget term, and the nearest plan within a budget (EffConv Eq. 3, 4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from effconv_core.size_predictor import round_straight_through


@dataclass(frozen=True)
class ParameterCost:
    """The parameter count of a CNN as a function of its kernel sizes (EffConv Eq. 3).

    Args:
        per_tap: c_l * c_{l-1} of each searched layer: what one kernel position costs.
        constant: the parameters of everything else; 0 for Eq. 3 alone.
    """

    per_tap: tuple[int, ...]
    constant: int = 0

    def __call__(self, sizes: Sequence[int]) -> int:
        """Count the parameters at integer sizes, one for each layer."""
        return self.constant + sum(
            count * size * size for count, size in zip(self.per_tap, sizes, strict=True)
        )

    def soft(self, sizes: Tensor) -> Tensor:
        """Count the parameters at sizes `(L,)`, as a scalar that is differentiable in them."""
        # Kernel counts of big models pass 2^24, where float32 stops counting; a ratio to the
        # budget is all that is made of this, so its rounding is harmless.
        per_tap = torch.tensor(self.per_tap, dtype=sizes.dtype, device=sizes.device)
        return (per_tap * sizes * sizes).sum() + self.constant


def paper_budget_loss(cost: ParameterCost, soft_sizes: Tensor, budget: float) -> Tensor:
    """Give |log(P(round v) / budget)| with a straight-through gradient (EffConv Eq. 4).

    The gradient takes d P / d v_l = 2 c_l c_{l-1} s_l.

    Args:
        cost: what sizes cost.
        soft_sizes: `(L,)`, v.
        budget: the wanted parameter count, above 0.
    """
    return torch.log(cost.soft(round_straight_through(soft_sizes)) / budget).abs()


def smooth_budget_loss(cost: ParameterCost, soft_sizes: Tensor, budget: float) -> Tensor:
    """Give log(P(v) / budget)^2 on the soft sizes: no dead zone, no jump at a half-integer.

    Args:
        cost: what sizes cost.
        soft_sizes: `(L,)`, v.
        budget: the wanted parameter count, above 0.
    """
    return torch.log(cost.soft(soft_sizes) / budget) ** 2


def check_budget(cost: ParameterCost, budget: float, largest: int) -> None:
    """Refuse a budget below the smallest plan or above the largest one.

    Raises:
        TypeError: if the budget is no number.
        ValueError: with the feasible range.
    """
    if isinstance(budget, bool) or not isinstance(budget, int | float):
        raise TypeError(f"budget is {budget!r}; pass the wanted parameter count as a number")
    smallest_cost = cost([1] * len(cost.per_tap))
    largest_cost = cost([largest] * len(cost.per_tap))
    if not smallest_cost <= budget <= largest_cost:
        raise ValueError(
            f"budget {budget:,.0f} cannot be met: plans of this model cost from "
            f"{smallest_cost:,} (all sizes 1) to {largest_cost:,} (all sizes {largest}), "
            "so pass a budget within that range or change k"
        )


def nearest_plan(
    cost: ParameterCost,
    soft_sizes: Sequence[float],
    budget: float,
    *,
    tolerance: float,
    largest: int,
) -> list[int]:
    """Give the integer sizes nearest to soft sizes whose cost is within tolerance of the budget.

    Plain rounding is kept where it is within. Otherwise the plan is the one with the least sum of
    |s_l - v_l|, so the sizes that change are those whose soft values are nearest to the other
    integer. It is a knapsack, solved by dynamic programming over cost; costs are kept exactly, and
    of plans whose costs differ by less than a 500th of the tolerance only the nearest is followed.

    Args:
        cost: what sizes cost.
        soft_sizes: L soft sizes v.
        budget: the wanted parameter count.
        tolerance: allowed distance of the cost from the budget, as a part of the budget.
        largest: the largest size.

    Raises:
        ValueError: if no plan is within the tolerance.
    """
    rounded = [min(max(round(v), 1), largest) for v in soft_sizes]
    low, high = budget * (1 - tolerance), budget * (1 + tolerance)
    if low <= cost(rounded) <= high:
        return rounded

    bin_width = max(math.gcd(*cost.per_tap), int(budget * tolerance / 500))
    sizes = np.arange(1, largest + 1)
    # One row for each reachable bin of cost: its exact cost and its distance from the soft sizes.
    costs, distances = np.array([cost.constant]), np.array([0.0])
    history = []
    for per_tap, v in zip(cost.per_tap, soft_sizes, strict=True):
        next_costs = (costs[:, None] + per_tap * sizes**2).ravel()
        next_distances = (distances[:, None] + np.abs(sizes - v)).ravel()
        bins = next_costs // bin_width
        nearest_first = np.lexsort((next_distances, bins))
        _, firsts = np.unique(bins[nearest_first], return_index=True)
        kept = nearest_first[firsts]
        kept = kept[next_costs[kept] <= high]
        history.append(kept)
        costs, distances = next_costs[kept], next_distances[kept]
    inside = np.flatnonzero(costs >= low)
    if not inside.size:
        others = f"the next cost below is {costs.max():,}" if costs.size else "all cost more"
        raise ValueError(
            f"no plan costs within {tolerance:.1%} of the budget {budget:,.0f}: the "
            f"{len(cost.per_tap)} searched layer(s) allow too few different costs and {others}, "
            "so raise the tolerance or change the budget"
        )
    row = inside[np.argmin(distances[inside])]
    plan = []
    for kept in reversed(history):
        row, choice = divmod(int(kept[row]), largest)
        plan.append(choice + 1)
    return plan[::-1]
