"""Which of the plans near the learned sizes is best, by the kernels that the search has learned."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor

from effconv_core.batches import epoch_batches
from effconv_core.budget import nearest_plan
from effconv_core.plan import SizePlan
from effconv_core.searchable import SearchableCNN

ROUNDS = 4
MOVED = 4  # layers that differ from the learned sizes in a drawn plan, before it meets the budget


def tournament(
    searchable: SearchableCNN,
    loader: Iterable[tuple[Any, Any]],
    *,
    budget: float,
    criterion: Callable[[Any, Any], Tensor],
) -> SizePlan:
    """Compare plans near the learned sizes by their loss; give the best (not in the paper).

    In each of four rounds the plans left see the same batches, twice as many as in the round
    before, starting with two, and the better half stays; all rounds count. No weight changes, but
    normalisation layers use and update their statistics as in training.

    Args:
        searchable: after a search; its config says how many plans are compared and how far from the
            soft sizes they are drawn.
        loader: training batches; passed over again from its start where it is too short.
        budget: the wanted parameter count, which all plans meet.
        criterion: the task's loss of `(outputs, targets)`.
    """
    plan = searchable.plan(budget)
    config = searchable.config
    totals = dict.fromkeys(_candidates(searchable, plan, budget), 0.0)
    device = next(searchable.kernel_predictor.parameters()).device
    batches = chain.from_iterable(epoch_batches(loader, e, device) for e in count(config.epochs))
    searchable.train()
    with torch.no_grad():
        for round_number in range(1, ROUNDS + 1):
            losses = torch.zeros(len(totals), device=device)
            for _ in range(2**round_number):
                inputs, targets = next(batches)
                outputs = [searchable.forward_at(sizes, inputs) for sizes in totals]
                losses += torch.stack([criterion(output, targets) for output in outputs])
            for sizes, loss in zip(totals, losses.tolist(), strict=True):
                totals[sizes] += loss
            best_first = sorted(totals, key=totals.__getitem__)
            totals = {sizes: totals[sizes] for sizes in best_first[: (len(totals) + 1) // 2]}
    best = next(iter(totals))
    return replace(plan, sizes=dict(zip(plan, best, strict=True)), cost=searchable.cost(best))


def _candidates(
    searchable: SearchableCNN, plan: SizePlan, budget: float
) -> dict[tuple[int, ...], None]:
    """Draw different plans that meet the budget, the learned one first."""
    config, L = searchable.config, len(plan)
    generator = torch.Generator().manual_seed(config.seed)
    soft_sizes = torch.tensor(list(plan.soft_sizes.values()))
    candidates = {tuple(plan.values()): None}
    for _ in range(10 * config.finalists):
        if len(candidates) == config.finalists:
            break
        noise = (2 * torch.rand(L, generator=generator) - 1) * config.exploration
        moved = torch.rand(L, generator=generator) < MOVED / L
        drawn = (soft_sizes + moved * noise).clamp(1, config.largest)
        sizes = nearest_plan(
            searchable.cost,
            drawn.tolist(),
            budget,
            tolerance=config.tolerance,
            largest=config.largest,
        )
        candidates.setdefault(tuple(sizes))
    return candidates
