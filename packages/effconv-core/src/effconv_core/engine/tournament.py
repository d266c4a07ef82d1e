"""Comparison of plans near the learned sizes, on the kernels that the search has learned."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, count
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from effconv_core.cost.budget import Budgets
from effconv_core.distributed.consistency import average, check_same
from effconv_core.distributed.failures import called_together, device_of, in_lockstep, together
from effconv_core.engine.loader import check_read_again, epoch_batches
from effconv_core.layers.batch_checks import checked_loss, explained_pass
from effconv_core.layers.contract import for_comparison
from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import copied, run_on
from effconv_core.method.searchable import SearchableCNN
from effconv_core.plan import SizePlan
from effconv_core.rng import seeded
from effconv_core.space.search_space import flat

ROUNDS = 4
MOVED = 4  # expected number of layers that a candidate changes; all if there are fewer


def tournament(
    searchable: SearchableCNN,
    loader: Iterable[tuple[Any, Any]],
    *,
    budget: Budgets,
    criterion: Callable[[Any, Any], Tensor] = F.cross_entropy,
    on_round: Callable[[int, int], None] | None = None,
    group: dist.ProcessGroup | None = None,
) -> SizePlan:
    """Return the plan near the learned sizes with the lowest loss (not in the paper).

    In each of four rounds the remaining plans see the same batches, twice as many as in the round
    before, starting with two, and the better half stays; losses add up over rounds. The network is
    in training mode, except for what it keeps in evaluation mode itself and for layers other than
    batch normalisation, such as dropout. The searchable network is not changed.

    Args:
        searchable: after a search; its config sets how many plans are compared and how far from the
            soft sizes they are drawn.
        loader: training batches; read again from its start if it is too short.
        budget: the target parameter count, or `Budget`s, which all plans meet.
        criterion: the task's loss of `(outputs, targets)`.
        on_round: called before each round with its number, from 1, and the number of plans left.
        group: the processes that compare together, each on its own part of each batch, see
            `search`; losses are averaged over them, so that all choose the same plan.

    Raises:
        RuntimeError: if another rank has failed, or has other plans to compare.
        TypeError: if inputs or targets have a dtype that the network or cross entropy does not
            take.
        ValueError: if the config has one finalist, no plan meets the budget, the loader is empty,
            or a label is none of the network's classes.
        FloatingPointError: if no plan has a finite loss.
    """
    device = device_of(searchable)
    with together(group, device):
        check_read_again(loader)
        plan, config = searchable.plan(budget), searchable.config
        if config.finalists == 1:
            raise ValueError(
                "finalists is 1, and a tournament compares at least 2; take "
                "searchable.plan(budget) or raise finalists and exploration in the config"
            )
        network = copy_network(searchable).train()
        for_comparison(network)
        with torch.device("cpu"):  # that of the generator
            totals = dict.fromkeys(_candidates(searchable, plan, budget), 0.0)
    check_same({"plans to compare": list(totals)}, device, group)
    said = called_together(on_round, group, device)
    batches = chain.from_iterable(epoch_batches(loader, e, device) for e in count(config.epochs))
    batches = in_lockstep(batches, group, device, "in the comparison of plans")
    with torch.no_grad():
        for round_number in range(1, ROUNDS + 1):
            said(round_number, len(totals))
            losses = torch.zeros(len(totals), device=device)
            for number in range(2**round_number):
                inputs, targets = next(batches)
                for place, sizes in enumerate(totals):
                    # What runs by chance is the same for all plans.
                    with seeded(config.seed, device), explained_pass(network.model, inputs):
                        at_sizes = partial(network.forward_at, sizes)
                        outputs = run_on(at_sizes, copied(inputs))
                    first = round_number == 1 and number == place == 0
                    losses[place] += checked_loss(criterion, outputs, targets, first=first).sum()
            average(losses, group)
            for sizes, loss in zip(totals, losses.tolist(), strict=True):
                totals[sizes] += loss if math.isfinite(loss) else math.inf
            best_first = sorted(totals, key=totals.__getitem__)
            totals = {sizes: totals[sizes] for sizes in best_first[: (len(totals) + 1) // 2]}
            if len(totals) == 1:
                break
    best, loss = next(iter(totals.items()))
    if loss == math.inf:
        raise FloatingPointError(
            "no plan near the learned sizes has a finite loss; lower the learning rates or check "
            "the data"
        )
    return searchable.plan_of(best, flat(plan.soft_sizes.values()), budget)


def _candidates(
    searchable: SearchableCNN, plan: SizePlan, budget: Budgets
) -> dict[tuple[int, ...], None]:
    """Draw distinct plans that meet the budget, the learned one first; at most `finalists`."""
    config, space = searchable.config, searchable.space
    V = len(space.variable_ranges)
    generator = torch.Generator().manual_seed(config.seed)
    soft_sizes = torch.tensor(flat(plan.soft_sizes.values()))
    low, high = torch.tensor(space.smallest()), torch.tensor(space.largest())
    candidates = {tuple(flat(plan.values())): None}
    for _ in range(10 * config.finalists):
        if len(candidates) == config.finalists:
            break
        noise = (2 * torch.rand(V, generator=generator) - 1) * config.exploration
        moved = torch.rand(V, generator=generator) < MOVED / V
        drawn = (soft_sizes + space.expand(moved * noise)).clamp(low, high)
        sizes = searchable.nearest_sizes(drawn.tolist(), budget)
        candidates.setdefault(tuple(sizes))
    return candidates
