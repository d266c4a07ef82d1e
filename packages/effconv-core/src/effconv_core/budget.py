"""What sizes cost, budgets of it, and their term of the loss (EffConv Eq. 3, 4)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from effconv_core.size_predictor import round_straight_through
from effconv_core.space import SizeSpace, Unit, flat

if TYPE_CHECKING:
    from effconv_core.searchable import SearchableCNN


class Cost(Protocol):
    """What S sizes cost: a whole number for each layer, and a constant for the rest."""

    counts: str
    """What is counted, as a plural noun, such as `"parameters"`."""
    constant: int

    def part(self, layer: int, sizes: Sequence[int] | Mapping[int, int]) -> int:
        """Give what the layer at this place costs; of the S sizes only its own are looked at."""

    def __call__(self, sizes: Sequence[int | Sequence[int]]) -> int:
        """Give the constant and all parts."""

    def soft(self, sizes: Tensor) -> Tensor:
        """Give the cost at sizes `(S,)` that need not be whole, differentiable in them."""


@dataclass(frozen=True)
class TapCost:
    """A cost that is proportional to every layer's taps: parameters, multiply-accumulates.

    Args:
        per_tap: what one kernel position of each searched layer costs: c_l * c_{l-1} parameters
            (EffConv Eq. 3), and as many multiplications at each position of the output.
        constant: what everything else costs; 0 for Eq. 3 alone.
        factors: for each layer the places of the sizes whose product is its number of taps; a
            square kernel with a size a layer, place twice, when None.
        counts: what is counted.
    """

    per_tap: tuple[int, ...]
    constant: int = 0
    factors: tuple[tuple[int, ...], ...] | None = None
    counts: str = "parameters"

    def part(self, layer: int, sizes: Sequence[int] | Mapping[int, int]) -> int:
        """Give what the layer at this place costs; of the S sizes only its own are looked at."""
        entries = (layer, layer) if self.factors is None else self.factors[layer]
        return self.per_tap[layer] * prod(sizes[entry] for entry in entries)

    def __call__(self, sizes: Sequence[int | Sequence[int]]) -> int:
        """Count at integer sizes: S of them, or one number or tuple for each layer.

        Raises:
            ValueError: if there are too few or too many.
        """
        sizes, L = flat(sizes), len(self.per_tap)
        expected = L if self.factors is None else 1 + max(map(max, self.factors))
        if len(sizes) != expected:
            raise ValueError(
                f"there are {len(sizes)} sizes; pass {expected}, one for each size that is searched"
            )
        return self.constant + sum(self.part(layer, sizes) for layer in range(L))

    def soft(self, sizes: Tensor) -> Tensor:
        """Count at sizes `(S,)`, as a scalar that is differentiable in them."""
        # Kernel counts of big models pass 2^24, where float32 stops counting; a ratio to the
        # budget is all that is made of this, so its rounding is harmless.
        device = {"device": sizes.device, "non_blocking": True}
        amount = torch.tensor(self.per_tap, dtype=sizes.dtype).to(**device)
        if self.factors is None:
            return (amount * sizes * sizes).sum() + self.constant
        # Kernels of fewer axes take a size of 1 for the others.
        widest = max(map(len, self.factors))
        padded = [f + (len(sizes),) * (widest - len(f)) for f in self.factors]
        extended = torch.cat([sizes, sizes.new_ones(1)])
        for column in zip(*padded, strict=True):
            amount = amount * extended[torch.tensor(column).to(**device)]
        return amount.sum() + self.constant


class Counter(Protocol):
    """Whatever tells what the sizes of a searchable network cost, such as `Macs`."""

    def __call__(self, searchable: "SearchableCNN") -> Cost:
        """Give the cost of the network as a function of its sizes."""


@dataclass(frozen=True)
class Budget:
    """A wanted cost.

    Args:
        amount: how much, in what is counted.
        counter: what is counted; when None, parameters, as `SearchConfig.count` says.
        at_most: whether the network may cost less. Otherwise it costs the amount within
            `SearchConfig.tolerance`.
        weight: of its term among those of other budgets.

    Raises:
        TypeError: if the amount or the weight is no number.
        ValueError: if one of them is not above 0.

    Examples:
        >>> Budget(270_000, at_most=True)
        Budget(amount=270000, counter=None, at_most=True, weight=1.0)
    """

    amount: float
    counter: Counter | None = None
    at_most: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("budget", self.amount), ("weight of a budget", self.weight)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                what = "the wanted parameter count as a number" if name == "budget" else "a number"
                raise TypeError(f"{name} is {value!r}; pass {what}")
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}; pass a finite number above 0")


Budgets = float | Budget | Sequence[Budget]
"""The wanted parameter count, a `Budget`, or several that must be met at once."""


def as_budgets(budget: Budgets) -> tuple[Budget, ...]:
    """Give the budgets that a number, a budget or a list of them stands for.

    Raises:
        TypeError: if it is none of these.
        ValueError: if the list is empty.
    """
    budgets = budget if isinstance(budget, list | tuple) else (budget,)
    if not budgets:
        raise ValueError("the list of budgets is empty; pass at least one Budget")
    return tuple(b if isinstance(b, Budget) else Budget(b) for b in budgets)


@dataclass(frozen=True)
class Bound:
    """A budget, what sizes cost in it, and how far a plan may lie from it, as a part of it."""

    cost: Cost
    budget: Budget
    tolerance: float

    @property
    def low(self) -> float:
        """The least that a plan may cost."""
        return float("-inf") if self.budget.at_most else self.budget.amount * (1 - self.tolerance)

    @property
    def high(self) -> float:
        """The most that a plan may cost."""
        return self.budget.amount * (1 if self.budget.at_most else 1 + self.tolerance)

    def record(self, cost: int | None = None) -> dict[str, Any]:
        """Give what is wanted, and what a plan costs, as JSON can hold it."""
        wanted = {
            "counts": self.cost.counts,
            "amount": self.budget.amount,
            "at_most": self.budget.at_most,
            "weight": self.budget.weight,
        }
        return wanted if cost is None else wanted | {"cost": cost}

    def __str__(self) -> str:
        most = "at most " if self.budget.at_most else ""
        return f"{most}{self.budget.amount:,.0f} {self.cost.counts}"

    def check(self, space: SizeSpace) -> None:
        """Refuse a budget below the smallest plan or above the largest one.

        Raises:
            ValueError: with the feasible range.
        """
        if self._within(self.cost(space.smallest()), self.cost(space.largest())):
            return
        # Of measured costs the least and the most may be those of other sizes.
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
            f"budget {self.budget.amount:,.0f} cannot be met: plans of this model cost from "
            f"{low:,} ({labels[0]}) to {high:,} ({labels[1]}) {self.cost.counts}, "
            "so pass a budget within that range or change k or the sizes allowed"
        )

    def _within(self, low: int, high: int) -> bool:
        amount = self.budget.amount
        return low <= amount and (self.budget.at_most or amount <= high)

    def _extreme(self, space: SizeSpace, choose: Callable[..., tuple[int, ...]]) -> list[int]:
        """Give the sizes of the plan that costs least, or most."""
        sizes = space.smallest()
        for unit in space.units:

            def spent(choice: Sequence[int], unit: Unit = unit) -> int:
                own = {e: s for es, s in zip(unit.entries, choice, strict=True) for e in es}
                return sum(self.cost.part(layer, own) for layer in unit.layers)

            best = choose(product(unit.allowed, repeat=len(unit.entries)), key=spent)
            for entries, size in zip(unit.entries, best, strict=True):
                for entry in entries:
                    sizes[entry] = size
        return sizes


def paper_budget_loss(
    cost: Cost,
    soft_sizes: Tensor,
    amount: float,
    *,
    sizes: Tensor | None = None,
    at_most: bool = False,
) -> Tensor:
    """Give |log(P(s) / amount)| with a straight-through gradient (EffConv Eq. 4).

    The gradient takes d P / d v_l = 2 c_l c_{l-1} s_l.

    Args:
        cost: what sizes cost.
        soft_sizes: `(S,)`, v.
        amount: the wanted cost, above 0.
        sizes: `(S,)`, s; v rounded when None.
        at_most: whether it is 0 below the amount.
    """
    ratio = torch.log(cost.soft(round_straight_through(soft_sizes, sizes)) / amount)
    return ratio.relu() if at_most else ratio.abs()


def smooth_budget_loss(
    cost: Cost, soft_sizes: Tensor, amount: float, *, at_most: bool = False
) -> Tensor:
    """Give log(P(v) / amount)^2 on the soft sizes: no dead zone, no jump at a half-integer.

    Args:
        cost: what sizes cost.
        soft_sizes: `(S,)`, v.
        amount: the wanted cost, above 0.
        at_most: whether it is 0 below the amount.
    """
    ratio = torch.log(cost.soft(soft_sizes) / amount)
    return (ratio.relu() if at_most else ratio) ** 2
