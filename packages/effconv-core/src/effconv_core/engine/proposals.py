"""Plans within a budget that are worth a training."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import scipy
import torch

from effconv_core.cost.budget import Budgets
from effconv_core.distributed.consistency import average
from effconv_core.engine.race import Trials
from effconv_core.engine.within import PlansWithin
from effconv_core.layers.batch_checks import checked_loss, explained_pass
from effconv_core.layers.contract import for_comparison
from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import copied, run_on
from effconv_core.method.searchable import SearchableCNN
from effconv_core.rng import seeded
from effconv_core.space.search_space import flat

BATCHES = 4  # on which a plan's loss on the search's own kernels is computed
POPULATION, GENERATIONS = 24, 6  # of the evolution on these kernels
EVOLVED = 2  # its best plans that are proposed
BEYOND = (2.0, 4.0)  # multiples of the way from the original sizes to the learned ones
BALANCED = 0.5  # power of what a layer's kernels cost, see `PlansWithin.balanced`
SLOPES = (1.0, -1.0, 2.0, -2.0)  # of the logarithm of the size from first to last layer

Plan = list[int]


class Proposals:
    """Plans within a budget, drawn from the seed of the config.

    Args:
        searchable: the network, after its kernels were trained.
        trials: has the data on which kernels are compared.
        budget: as for `search`.

    Attributes:
        learned: S soft sizes.
        original: layer name to the size of the network's own kernel.
        own: the S original sizes if a plan may have them, else None.
    """

    def __init__(self, searchable: SearchableCNN, trials: Trials, budget: Budgets) -> None:
        self.searchable, self.budget, self.config = searchable, budget, searchable.config
        self.within = PlansWithin(searchable, budget)
        self.learned = flat(searchable.plan().soft_sizes.values())
        self.original, self.own = searchable.original_sizes, self.within.own
        self.losses = KernelLosses(searchable, trials)

    def draw(self) -> tuple[list[Plan], list[float], int]:
        """Draw at most `finalists` plans.

        Returns:
            The plans, the original sizes first if they are within the budget; their losses on the
            search's own kernels; and the number of forward passes that finding them took.
        """
        within, start = self.within, self.within.start
        learned = within.free(self.learned)
        plans: dict[tuple[int, ...], None] = {}
        if self.own is not None:
            plans[tuple(self.own)] = None
        plans[tuple(self.searchable.nearest_sizes(self.learned, self.budget))] = None
        beyond = [start * (learned / start) ** times for times in BEYOND]
        plans |= dict.fromkeys(map(within.nearest, [start, *beyond]))
        shapes = [within.balanced(BALANCED), *map(within.sloped, SLOPES)]
        shaped = dict.fromkeys(map(within.nearest, shapes))
        plans |= dict.fromkeys(self._evolved([*plans, *shaped])) | shaped
        plans |= dict.fromkeys(within.random(self.config.finalists, self.config.seed))
        chosen = list(plans)[: self.config.finalists]
        losses = [self.losses(plan) for plan in chosen]
        return [list(plan) for plan in chosen], losses, self.losses.passes

    def _evolved(self, plans: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Return the plans of the least loss that differential evolution saw."""
        within, seen, failures = self.within, {}, []

        def fitness(logs: np.ndarray) -> float:
            plan = within.nearest(np.exp(logs))
            try:
                seen[plan] = self.losses(plan)
            except (TypeError, ValueError) as error:
                failures.append(error)  # in whose place SciPy raises one of its own
                raise
            return seen[plan]

        known = [np.log(within.free(plan)) for plan in plans]
        random = np.random.default_rng((self.config.seed, 2))
        drawn = [np.log(within.random_sizes(random)) for _ in range(POPULATION)]
        ends = list(zip(np.log(within.lows), np.log(within.highs), strict=True))
        if all(low == high for low, high in ends):
            return []
        try:
            scipy.optimize.differential_evolution(
                fitness,
                [(low, high + 1e-9) for low, high in ends],
                init=np.array([*known, *drawn])[:POPULATION],
                maxiter=GENERATIONS,
                polish=False,
                tol=0,
                seed=self.config.seed,
            )
        except RuntimeError as error:
            raise (failures[0] if failures else error) from None
        return sorted(seen, key=seen.__getitem__)[:EVOLVED]


class KernelLosses:
    """The loss of plans on the kernels of the search, on a few batches of its next epoch.

    Batch normalisation uses the batch's own statistics, since its running ones are of other sizes.
    """

    def __init__(self, searchable: SearchableCNN, trials: Trials) -> None:
        self.network = copy_network(searchable).train()
        for_comparison(self.network)
        self.trials, self.passes = trials, 0
        self.device = next(searchable.kernel_predictor.parameters()).device
        self.batches: list[Any] = []
        self.known: dict[tuple[int, ...], float] = {}

    @torch.no_grad()
    def __call__(self, plan: tuple[int, ...]) -> float:
        """Return the mean loss of a plan, 1e30 if it is not finite."""
        self.batches = self.batches or self.trials.some_batches(BATCHES)
        if plan not in self.known:
            total = torch.zeros((), device=self.device)
            for number, (inputs, targets) in enumerate(self.batches):
                # What runs by chance is the same for all plans.
                with seeded(number, self.device), explained_pass(self.network.model, inputs):
                    outputs = run_on(partial(self.network.forward_at, plan), copied(inputs))
                first = not self.known and number == 0
                loss = checked_loss(self.trials.criterion, outputs, targets, first=first)
                total += loss.sum() / len(self.batches)
            self.passes += len(self.batches)
            loss = average(total, self.trials.group).item()
            self.known[plan] = loss if math.isfinite(loss) else 1e30
        return self.known[plan]
