"""`score`: rank the plans of a search in a table in which the best plan is known."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from effconv_core.config import SearchConfig
from effconv_core.engine.search import search
from effconv_core.method.searchable import SearchableCNN
from effconv_core.plan import SizePlan
from effconv_core.space.selection import LayerFilter


@dataclass(frozen=True)
class PlanScore:
    """The rank of one plan in a table of plans whose accuracies are known."""

    plan: Mapping[str, int]
    accuracy: float
    """The plan's accuracy in the table, from 0 to 1, the mean over its trainings."""
    percentile: float
    """Share of the table's other plans that are worse, in per cent; equal ones count half."""
    regret: float
    """Accuracy of the table's best plan minus that of this one."""


def rank_plan(
    plan: Mapping[str, int], plans: Sequence[Mapping[str, int]], accuracies: Sequence[Any]
) -> PlanScore:
    """Rank a plan in a table.

    Args:
        plan: layer name to size.
        plans: P plans, at least two, all different.
        accuracies: `(P,)`, or `(P, trainings)`, which are averaged.

    Raises:
        ValueError: if the table is too small or uneven, or the plan is not in it.
    """
    table = [dict(entry) for entry in plans]
    means = np.asarray(accuracies, dtype=float)
    means = means.mean(axis=1) if means.ndim == 2 else means
    if len(table) < 2 or means.shape != (len(table),) or not np.isfinite(means).all():
        raise ValueError(
            f"the table has {len(table)} plans and accuracies of shape {means.shape}; pass at "
            "least two plans and one finite accuracy, or a row of them, for each"
        )
    if dict(plan) not in table:
        raise ValueError(
            f"plan {dict(plan)} is not among the {len(table)} plans of the table; add its "
            "accuracy, so that every plan within the tolerance of the budget is there"
        )
    place = table.index(dict(plan))
    others = np.delete(means, place)
    worse = (others < means[place]).sum() + 0.5 * (others == means[place]).sum()
    return PlanScore(
        plan=dict(plan),
        accuracy=float(means[place]),
        percentile=float(100 * worse / len(others)),
        regret=float(means.max() - means[place]),
    )


def score(
    make_model: Callable[[int], nn.Module],
    loaders: Sequence[Iterable[tuple[Any, Any]]],
    plans: Sequence[Mapping[str, int]],
    accuracies: Sequence[Any],
    recipe: SearchConfig,
    *,
    budget: float | None = None,
    searched: LayerFilter | None = None,
) -> list[PlanScore]:
    """Search once with each loader, and rank each found plan in a table of all plans.

    Args:
        make_model: returns the network to search for a seed.
        loaders: one for each search; search i uses `loaders[i]`, `make_model(i)` and seed i.
        plans: all P plans within the recipe's tolerance of the budget.
        accuracies: `(P,)`, or `(P, trainings)`, of the plans when trained from scratch.
        recipe: settings of the search; its seed is set for each search.
        budget: the target parameter count; None is the middle of the cheapest and the dearest
            plan of the table.
        searched: which convolutions are searched, see `searched_layers`.

    Returns:
        One `PlanScore` for each search.

    Raises:
        ValueError: if the table is malformed or lacks the plan that a search found, or as `search`
            does.

    Examples:
        >>> def make_model(seed):
        ...     generator = torch.Generator().manual_seed(seed)
        ...     net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
        ...     return net.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
        >>> loader = [(torch.randn(4, 1, 9, 9), torch.tensor([0, 1, 2, 3]))]
        >>> plans = [{"1": 3, "2": 3}, {"1": 4, "2": 1}, {"1": 1, "2": 4}]
        >>> scores = score(
        ...     make_model, [loader] * 2, plans, [0.9, 0.8, 0.7], recipe("bank", epochs=1),
        ...     budget=304,
        ... )
        >>> [(s.percentile, s.regret) for s in scores]
        [(100.0, 0.0), (100.0, 0.0)]
    """
    rank_plan(plans[0], plans, accuracies)  # raises before any search if the table is malformed
    if budget is None:
        searchable = SearchableCNN(make_model(0), recipe, searched=searched)
        costs = [searchable.cost([plan[name] for name in searchable.layers]) for plan in plans]
        budget = (min(costs) + max(costs)) / 2
    scores = []
    for seed, loader in enumerate(loaders):
        plan: SizePlan = search(
            make_model(seed),
            loader,
            budget=budget,
            config=replace(recipe, seed=seed),
            searched=searched,
        )
        scores.append(rank_plan(plan, plans, accuracies))
    return scores
