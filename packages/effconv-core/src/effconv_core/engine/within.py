"""Plans within a budget that have given proportions, or random ones."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from effconv_core.cost.budget import Budgets
from effconv_core.method.searchable import SearchableCNN
from effconv_core.space.rounding import nearest_size
from effconv_core.space.search_space import flat


class PlansWithin:
    """Plans of a network within a budget.

    Args:
        searchable: the network.
        budget: as for `search`.

    Attributes:
        own: the S sizes of the network's own kernels if a plan may have them, else None.
        start: V sizes, one for each size that is free: the network's own, within what is allowed.
    """

    def __init__(self, searchable: SearchableCNN, budget: Budgets) -> None:
        self.searchable, self.budget, self.space = searchable, budget, searchable.space
        self.constraints = searchable.constraints(budget)
        free = range(len(self.space.variable_ranges))
        self.firsts = np.array([self.space.variables.index(v) for v in free])
        self.lows = np.array([float(r[0]) for r in self.space.variable_ranges])
        self.highs = np.array([float(r[-1]) for r in self.space.variable_ranges])
        own = flat(searchable.original_sizes.values())
        self.own = own if self._is_allowed(own) else None
        self.start = np.clip(np.array(own, float)[self.firsts], self.lows, self.highs)

    def free(self, sizes: Sequence[float]) -> np.ndarray:
        """Return the V of S sizes that are free; others are tied to one of them."""
        return np.array(sizes, float)[self.firsts]

    def nearest(self, sizes: np.ndarray) -> tuple[int, ...]:
        """Return a plan within the budget that has the proportions of sizes `(V,)`.

        All are multiplied by the largest number at which they are within the budget, and the
        nearest plan is taken. Then sizes are raised until none can be larger within the budget's
        amount, each time the one that changes the least in proportion.
        """
        low, high = -5.0, 5.0
        for _ in range(30):
            middle = (low + high) / 2
            rounded = self.space.rounded(self.expanded(sizes * math.exp(middle)))
            if self._is_affordable(rounded):
                low = middle
            else:
                high = middle
        scaled = self.expanded(sizes * math.exp(low))
        return self._filled(tuple(self.searchable.nearest_sizes(scaled, self.budget)))

    def random(self, most: int, seed: int) -> list[tuple[int, ...]]:
        """Draw at most `most` distinct plans, of sizes that are uniform on a logarithmic scale."""
        random = np.random.default_rng((seed, 0))
        plans: dict[tuple[int, ...], None] = {}
        for _ in range(10 * most):
            plans[self.nearest(self.random_sizes(random))] = None
            if len(plans) == most:
                break
        return list(plans)

    def sloped(self, slope: float) -> np.ndarray:
        """Return the network's own sizes, rising by a factor `exp(slope)` from first to last."""
        return self.start * np.exp(slope * np.linspace(-0.5, 0.5, len(self.start)))

    def balanced(self, share: float) -> np.ndarray:
        """Return the network's own sizes, larger where that is cheap and smaller where it is dear.

        Each is multiplied by the power `-share` of what its layer's kernels cost: the price of the
        next size times the size. At a half all kernels in two dimensions then cost the same, and
        those in one dimension differ by the root of the factors that they differ by before.
        """
        prices = np.array([self._price(v) for v in range(len(self.start))])
        spent = prices * self.start
        if not (spent > 0).any():
            return self.start
        spent = np.maximum(spent, 1e-3 * spent.max())  # some sizes cost nothing
        return self.start * (spent / np.exp(np.log(spent).mean())) ** -share

    def random_sizes(self, random: np.random.Generator) -> np.ndarray:
        """Draw V sizes, whatever they cost."""
        return np.exp(random.uniform(np.log(self.lows), np.log(self.highs)))

    def expanded(self, sizes: np.ndarray) -> list[float]:
        """Return the S soft sizes of V free ones, within what is allowed."""
        clipped = torch.from_numpy(np.clip(sizes, self.lows, self.highs))
        return self.space.expand(clipped).tolist()

    def _filled(self, plan: tuple[int, ...]) -> tuple[int, ...]:
        before, sizes = self.free(plan), self.free(plan)
        larger = np.array([self._beside(v, size)[1] for v, size in enumerate(sizes)])
        open_ = larger > sizes  # what cannot be raised now cannot be raised later
        while open_.any():
            v = int(np.argmin(np.where(open_, larger / before, np.inf)))
            raised = self._with(sizes, v, larger[v])
            if self._is_affordable(raised):
                plan, sizes = raised, self.free(raised)
                larger[v] = self._beside(v, sizes[v])[1]
            open_[v] = raised == plan and larger[v] > sizes[v]
        return plan

    def _price(self, variable: int) -> float:
        """Return what one more costs, as a part of the budgets."""
        ends = self._beside(variable, self.start[variable])
        plans = [self._with(self.start, variable, size) for size in ends]
        costs = [sum(c.cost(plan) / c.budget.amount for c in self.constraints) for plan in plans]
        return (costs[1] - costs[0]) / max(ends[1] - ends[0], 1)

    def _beside(self, variable: int, size: float) -> tuple[int, int]:
        """Return the next smaller and larger allowed sizes; that itself if it is the last."""
        allowed = self.space.variable_ranges[variable]
        place = allowed.index(nearest_size(size, allowed))
        return allowed[max(place - 1, 0)], allowed[min(place + 1, len(allowed) - 1)]

    def _with(self, sizes: np.ndarray, variable: int, size: int) -> tuple[int, ...]:
        """Return the plan nearest to V free sizes, of which one is replaced."""
        changed = np.array(sizes, float)
        changed[variable] = size
        return tuple(self.space.rounded(self.expanded(changed)))

    def _is_affordable(self, sizes: Sequence[int]) -> bool:
        return all(c.cost(sizes) <= c.budget.amount for c in self.constraints)

    def _is_allowed(self, sizes: Sequence[int]) -> bool:
        leaders = [sizes[self.space.variables.index(v)] for v in self.space.variables]
        return (
            leaders == list(sizes)
            and self.space.allows(sizes)
            and all(c.low <= c.cost(sizes) <= c.high for c in self.constraints)
        )
