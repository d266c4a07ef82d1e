"""How budgets of a searchable network are counted: costs, constraints, the loss, the plan."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from effconv_core.config import SearchConfig
from effconv_core.cost.base import Cost, Searchable
from effconv_core.cost.budget import Budgets, Constraint, as_budgets
from effconv_core.cost.losses import paper_budget_loss, smooth_budget_loss
from effconv_core.cost.solver import nearest_plan
from effconv_core.space.search_space import SizeSpace


class Accounting:
    """What a network's sizes cost in whatever budgets count; each counter is asked once.

    Args:
        config: tolerance of plans, form and weight of the loss.
        space: the layers and what sizes they may have.
        cost: of a budget without a counter.
    """

    def __init__(self, config: SearchConfig, space: SizeSpace, cost: Cost) -> None:
        self.config, self.space = config, space
        self.costs: dict[Any, Cost] = {None: cost}

    def constraints(self, searchable: Searchable, budget: Budgets) -> list[Constraint]:
        """Return each budget with what sizes cost in it; a new counter counts the network."""
        constraints = []
        for one in as_budgets(budget):
            if one.counter not in self.costs:
                self.costs[one.counter] = one.counter(searchable)
            cost = self.costs[one.counter]
            constraints.append(Constraint(cost, one, self.config.tolerance))
        return constraints

    def loss(self, constraints: Sequence[Constraint], soft_sizes: Tensor, sizes: Tensor) -> Tensor:
        """Return the weighted sum of the budgets' terms (EffConv Eq. 4, 8), a scalar.

        Args:
            constraints: at least one.
            soft_sizes: `(S,)`, v.
            sizes: `(S,)`, these rounded, as floating-point numbers.
        """
        terms = []
        for constraint in constraints:
            budget = constraint.budget
            wanted = {"amount": budget.amount, "at_most": budget.at_most}
            if self.config.budget_form == "paper":
                term = paper_budget_loss(constraint.cost, soft_sizes, sizes=sizes, **wanted)
            else:
                term = smooth_budget_loss(constraint.cost, soft_sizes, **wanted)
            terms.append(self.config.budget_weight * budget.weight * term)
        return sum(terms[1:], start=terms[0])

    def filled_in(self, constraints: Sequence[Constraint], soft_sizes: Sequence[float]) -> int:
        """Return how many of the nearest plan's S sizes are not the rounded soft sizes."""
        rounded = self.space.rounded(soft_sizes)
        nearest = self.nearest(constraints, soft_sizes)
        return sum(size != other for size, other in zip(rounded, nearest, strict=True))

    def nearest(self, constraints: Sequence[Constraint], soft_sizes: Sequence[float]) -> list[int]:
        """Return the allowed sizes nearest to S soft sizes that meet all constraints.

        Raises:
            ValueError: if they cannot be met; the sentence gives the feasible range.
        """
        for constraint in constraints:
            constraint.check(self.space)
        return nearest_plan(constraints, soft_sizes, self.space)
