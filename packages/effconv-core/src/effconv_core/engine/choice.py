"""The choice at the end of a search: proposals from its kernels, then training them side by side.

1. *Proposals.* The original sizes, the learned ones, those further along the way that the learned
   ones went, the best of an evolution over all plans within the budget by their loss on the kernels
   of the search, sizes whose kernels cost about the same in each layer, sizes that rise or fall
   over the depth, and random ones.
2. *Rounds.* Each is trained from fresh kernels, and so are the original sizes beside it. The three
   of the least loss are trained again, then two times the best of these, each time beside the
   original sizes, from another seed, and with another part of the data held out. The best is that
   of the least mean loss in the first two rounds.
3. *Evidence.* The best plan and the original sizes, which were in all four rounds, see `Evidence`.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from effconv_core.cost.budget import Budgets
from effconv_core.distributed.failures import called_together
from effconv_core.distributed.stages import Remember
from effconv_core.engine.proposals import Plan, Proposals
from effconv_core.engine.race import PARTS, Result, Trials
from effconv_core.engine.tournament import tournament
from effconv_core.evidence import LEVEL, Evidence, interval, level_of_loss, verdict_of
from effconv_core.io.checkpoint import REMEDY
from effconv_core.method.searchable import SearchableCNN
from effconv_core.plan import Size, SizePlan
from effconv_core.space.search_space import SizeSpace, flat

STAY = (3, 1, 1)  # plans that are trained again, in each round after the first
STAGES = 1 + len(STAY)
SEEDS = 10  # of trainings, for each seed of a search

Round = dict[tuple[Size, ...], Result]
"""The results of plans that were trained beside each other, and of `ORIGINAL`."""
ORIGINAL = ()
"""Stands for the original sizes, which need not be a plan within the budget."""


def choose_plan(
    searchable: SearchableCNN,
    trials: Trials,
    budget: Budgets,
    *,
    remember: Remember,
    on_round: Callable[[int, int], None] | None = None,
) -> SizePlan:
    """Choose a plan within the budget, and compare it with the original sizes.

    Args:
        searchable: the network, after its kernels were trained.
        trials: trains plans.
        budget: as for `search`.
        remember: keeps the result of each stage, a JSON value.
        on_round: called before each stage with its number, from 1, and the number of plans.

    Returns:
        The plan, with its evidence. It has the original sizes if they are within the budget, the
        config keeps them, and the best plan found was not shown to be better. Where an epoch has
        fewer than five batches nothing can be held out and nothing is trained: the best plan is
        then that of `tournament`, and not shown to be better.

    Raises:
        FloatingPointError: if no plan has a finite loss.
    """
    config, space = searchable.config, searchable.space
    said = called_together(on_round, trials.group, trials.device)
    proposals, steps = Proposals(searchable, trials, budget), config.race_steps
    keeps = config.keep == "original" and proposals.own is not None
    if trials.tested_steps < PARTS:
        loader, criterion, group = trials.loader, trials.criterion, trials.group
        options = {"criterion": criterion, "on_round": on_round, "group": group}
        plan = tournament(searchable, loader, budget=budget, **options)
        evidence = evidence_of((), found=plan.sizes, keeps=keeps)
        sizes = proposals.own if keeps else flat(plan.values())
        return searchable.plan_of(sizes, proposals.learned, budget, evidence)

    def train(plans: Sequence[Plan], number: int) -> list[list[Any]]:
        """Return the results of a round's plans and, last, of the original sizes."""
        sizes = [*map(space.by_layer, plans), proposals.original]
        seed = SEEDS * config.seed + number
        results = trials.run(sizes, steps=steps, seed=seed, epoch=number, paired=True)
        # JSON has no infinity.
        return [[loss if math.isfinite(loss) else None, *others] for loss, *others in results]

    plans, kernel_losses, passes = remember("proposals", proposals.draw)
    others = [plan for plan in plans if plan != proposals.own][: max(config.finalists - 1, 1)]
    if not others:
        evidence = evidence_of((), found=proposals.original, keeps=keeps, plans=1)
        return searchable.plan_of(proposals.own, proposals.learned, budget, evidence)
    rounds: list[Round] = []
    for number, stay in enumerate((len(others), *STAY)):
        tried = _ranked(others, rounds)[:stay]
        said(number + 1, len(tried) + 1)
        rows = remember(f"round {number}", partial(train, tried, number))
        rounds.append(_round_of(rows, tried))
        if not number and all(rounds[0][tuple(plan)].loss == math.inf for plan in others):
            raise FloatingPointError(
                "no plan that was tried has a finite loss; lower cnn_lr or check the data"
            )
    (found,) = tried
    keys = [ORIGINAL if plan == proposals.own else tuple(plan) for plan in plans]
    known = dict(zip(keys, kernel_losses, strict=True))
    both = [plan for plan in rounds[0] if plan in known]
    evidence = evidence_of(
        [(results[tuple(found)], results[ORIGINAL]) for results in rounds],
        found=space.by_layer(found),
        keeps=keeps,
        steps=steps,
        plans=len(rounds[0]),
        agreement=_agreement(
            [known[plan] for plan in both], [rounds[0][plan].loss for plan in both]
        ),
        spent={
            "kernels": trials.epochs * trials.epoch_steps,
            "proposals": -(-passes // 3),
            "trainings": sum(trials.cost(len(done), steps, paired=True) for done in rounds),
        },
    )
    sizes = proposals.own if evidence.kept == "original" else found
    return searchable.plan_of(sizes, proposals.learned, budget, evidence)


def _ranked(plans: Sequence[Plan], rounds: Sequence[Round]) -> list[Plan]:
    """Return the plans that were trained in all rounds, by rising mean of their losses.

    Those of which more losses are not finite come after the others.
    """
    stayed = [plan for plan in plans if all(tuple(plan) in results for results in rounds)]

    def order(plan: Plan) -> tuple[int, float]:
        losses = [results[tuple(plan)].loss for results in rounds]
        finite = [loss for loss in losses if math.isfinite(loss)]
        return len(losses) - len(finite), sum(finite)

    return sorted(stayed, key=order)


def _round_of(rows: Sequence[Sequence[float | None]], plans: Sequence[Plan]) -> Round:
    """Return the results of a round from its JSON value; raise if there is not one for each."""
    keys = [*map(tuple, plans), ORIGINAL]
    if len(rows) != len(keys):
        raise ValueError(
            f"the search's state has {len(rows)} trainings for {len(keys)} plans; {REMEDY}"
        )
    results = [Result(math.inf if loss is None else loss, *others) for loss, *others in rows]
    return dict(zip(keys, results, strict=True))


def kept_stages(stages: dict[str, Any]) -> dict[str, Any]:
    """Return the stages of a choice that go on: none where a version before 0.9.0 made them."""
    return stages if "round 0" in stages else {}


def check_stages(path: Path, stages: Mapping[str, Any], space: SizeSpace) -> None:
    """Raise unless the stages of a choice that a state holds can be those of a search.

    Args:
        path: the state's file.
        stages: of the form that `check_progress` has checked.
        space: of the sizes that are searched.

    Raises:
        ValueError: if a plan has another number of sizes, or one that is not allowed, there is not
            one loss for each plan, or an accuracy is not from 0 to 1.
    """
    plans, losses = stages.get("proposals", [[], []])[:2]
    if not all(map(space.allows, plans)) or len(plans) != len(losses):
        raise ValueError(f"{path} has proposals that no such search makes; {REMEDY}")
    if "proposals" in stages and not plans:
        raise ValueError(f"{path} has no proposals, and a search makes one at least; {REMEDY}")
    others = ("proposals", "children")  # the rest are trainings
    trainings = [row for name, rows in stages.items() if name not in others for row in rows]
    if not all(accuracy is None or 0 <= accuracy <= 1 for _, accuracy, *_ in trainings):
        raise ValueError(f"{path} has an accuracy that is not from 0 to 1; {REMEDY}")


def evidence_of(rows: Sequence[Sequence[Result]], *, keeps: bool, **known: Any) -> Evidence:
    """Return the evidence of pairs of results, found and original.

    Args:
        rows: no pair, or at least two.
        keeps: whether the original sizes are kept unless the others are better.
        **known: other fields of `Evidence`.
    """
    differences = [found.loss - original.loss for found, original in rows]
    original_loss = float(np.mean([original.loss for _, original in rows])) if rows else None
    accuracies = None
    if rows and all(result.accuracy is not None for row in rows for result in row):
        accuracies = [found.accuracy - original.accuracy for found, original in rows]
    level = level_of_loss(accuracies)
    verdict, loss, loss_interval = "no difference shown", None, None
    if rows and all(map(math.isfinite, differences)):
        verdict = verdict_of(differences, original_loss, accuracies)
        loss, loss_interval = float(np.mean(differences)), interval(differences, level)
    elif rows:
        verdict = "worse" if any(math.isinf(found.loss) for found, _ in rows) else "better"
        original_loss = None
    learned = not rows or any(map(_learned, zip(*rows, strict=True)))
    if not learned:
        verdict = "no difference shown"
    return Evidence(
        verdict=verdict,
        kept="original" if keeps and verdict != "better" else "found",
        loss=loss,
        loss_interval=loss_interval,
        original_loss=original_loss,
        accuracy=None if accuracies is None else float(np.mean(accuracies)),
        accuracy_interval=None if accuracies is None else interval(accuracies, LEVEL),
        pairs=len(rows),
        level=level,
        accuracy_level=None if accuracies is None else LEVEL,
        learned=learned,
        **known,
    )


def _learned(results: Sequence[Result]) -> bool:
    """Return whether a plan's outputs are better on data held out than their own mean is."""
    if any(result.constant is None for result in results):
        return True  # it cannot be told
    return sum(result.loss for result in results) < sum(result.constant for result in results)


def _agreement(kernel_losses: Sequence[float], trained: Sequence[float]) -> float | None:
    """Return Spearman's correlation of two losses of plans; None if it is not defined."""
    if len(trained) < 3 or not all(map(math.isfinite, trained)):
        return None
    if len(set(kernel_losses)) == 1 or len(set(trained)) == 1:
        return None
    return float(scipy.stats.spearmanr(kernel_losses, trained).statistic)


def plan_found(
    checkpoint: str | os.PathLike[str] | None,
    text: str,
    searchable: SearchableCNN,
    budget: Budgets,
) -> SizePlan:
    """Return the plan that a state holds, if this search can have found it."""
    try:
        plan = SizePlan.from_json(text)
        if plan.keys() != set(searchable.layers):
            raise ValueError(
                f"it has the layers {list(plan)}, and searched are {searchable.layers}"
            )
        sizes = flat(plan[name] for name in searchable.layers)
        if not searchable.space.allows(sizes):
            raise ValueError(f"its sizes are {sizes}, and not all of them are allowed")
        cost = searchable.cost(sizes)
        if plan.cost != cost:
            raise ValueError(f"its cost is {plan.cost}, and its sizes cost {cost}")
        for limit in searchable.constraints(budget):
            # What is measured may have another cost each time.
            if limit.budget.counter is None and not limit.low <= cost <= limit.high:
                raise ValueError(f"its cost is {cost}, and the budget is {limit}")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{checkpoint} holds a plan that this search cannot have found: {error}; delete it to "
            "start again, or name another file"
        ) from None
    return plan
