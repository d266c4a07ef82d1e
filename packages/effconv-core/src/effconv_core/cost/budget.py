"""Budgets, and the constraint that one is on the sizes of a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from effconv_core.cost.base import Cost, Counter
from effconv_core.scalars import in_figures, plain
from effconv_core.space.search_space import SizeSpace, TiedSizes


@dataclass(frozen=True)
class Budget:
    """A target cost.

    Args:
        amount: the target, in the unit of the counter.
        counter: the kind of cost; None counts parameters, as `SearchConfig.count` says.
        at_most: whether the network may cost less. Otherwise it costs the amount within
            `SearchConfig.tolerance`.
        weight: weight of its term among those of other budgets.

    Raises:
        TypeError: if the amount or the weight is not a number.
        ValueError: if one of them is not above 0 and finite.

    Examples:
        >>> Budget(270_000, at_most=True)
        Budget(amount=270000, counter=None, at_most=True, weight=1.0)
    """

    amount: float
    counter: Counter | None = None
    at_most: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", plain(self.amount))
        object.__setattr__(self, "weight", plain(self.weight))
        for name, value in (("budget", self.amount), ("weight of a budget", self.weight)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                what = "the wanted parameter count as a number" if name == "budget" else "a number"
                raise TypeError(f"{name} is {value!r}; pass {what}")
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}; pass a finite number above 0")


Budgets = float | Budget | Sequence[Budget]
"""The wanted parameter count, a `Budget`, or several that must be met at once."""


def as_budgets(budget: Budgets) -> tuple[Budget, ...]:
    """Return the budgets that a number, a budget or a list of them stands for.

    Raises:
        TypeError: if it is none of these.
        ValueError: if the list is empty.
    """
    budgets = budget if isinstance(budget, list | tuple) else (budget,)
    if not budgets:
        raise ValueError("the list of budgets is empty; pass at least one Budget")
    return tuple(b if isinstance(b, Budget) else Budget(b) for b in budgets)


@dataclass(frozen=True)
class Constraint:
    """A constraint: a budget, its cost function, and the relative tolerance around it."""

    cost: Cost
    budget: Budget
    tolerance: float

    @property
    def low(self) -> float:
        """The lowest cost that a plan may have."""
        return float("-inf") if self.budget.at_most else self.budget.amount * (1 - self.tolerance)

    @property
    def high(self) -> float:
        """The highest cost that a plan may have."""
        return self.budget.amount * (1 if self.budget.at_most else 1 + self.tolerance)

    def record(self, **costs: int) -> dict[str, Any]:
        """Return the budget as a JSON object, with costs of a plan under the names given."""
        wanted = {
            "counts": self.cost.counts,
            "amount": self.budget.amount,
            "at_most": self.budget.at_most,
            "weight": self.budget.weight,
        }
        return wanted | costs

    def __str__(self) -> str:
        most = "at most " if self.budget.at_most else ""
        return f"{most}{in_figures(self.budget.amount)} {self.cost.counts}"

    def check(self, space: SizeSpace) -> None:
        """Check that the budget lies between the cheapest and the dearest plan.

        Raises:
            ValueError: with the feasible range.
        """
        if self._within(self.cost(space.smallest()), self.cost(space.largest())):
            return
        # Measured costs need not be lowest and highest at the smallest and largest sizes.
        cheapest, dearest = (self._extreme(space, choose) for choose in (min, max))
        low, high = self.cost(cheapest), self.cost(dearest)
        if self._within(low, high):
            return
        labels = []
        for sizes, ends, word, cost in (
            (cheapest, space.smallest(), "smallest", "cheapest"),
            (dearest, space.largest(), "largest", "dearest"),
        ):
            if len(set(sizes)) == 1:
                labels.append(f"all sizes {sizes[0]}")
            else:
                labels.append(f"all sizes at their {word}" if sizes == ends else f"the {cost}")
        raise ValueError(
            f"budget {in_figures(self.budget.amount)} cannot be met: plans of this model cost from "
            f"{low:,} ({labels[0]}) to {high:,} ({labels[1]}) {self.cost.counts}, "
            "so pass a budget within that range or change k or the sizes allowed"
        )

    def _within(self, low: int, high: int) -> bool:
        amount = self.budget.amount
        return low <= amount and (self.budget.at_most or amount <= high)

    def _extreme(self, space: SizeSpace, choose: Callable[..., tuple[int, ...]]) -> list[int]:
        """Return the S sizes of the cheapest plan (`choose` is `min`) or the dearest (`max`)."""
        sizes = space.smallest()
        for unit in space.units:

            def spent(choice: Sequence[int], unit: TiedSizes = unit) -> int:
                own = {e: s for es, s in zip(unit.entries, choice, strict=True) for e in es}
                return sum(self.cost.part(layer, own) for layer in unit.layers)

            best = choose(product(unit.allowed, repeat=len(unit.entries)), key=spent)
            for entries, size in zip(unit.entries, best, strict=True):
                for entry in entries:
                    sizes[entry] = size
        return sizes
