"""`probe`: whether kernel sizes matter to a network and a data set, before any search."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from effconv_core.config import SearchConfig, recipe
from effconv_core.cost.budget import Budgets
from effconv_core.distributed.consistency import check_same
from effconv_core.distributed.failures import device_of, together
from effconv_core.engine.loader import check_read_again
from effconv_core.engine.race import PARTS, Trials, checked_steps, checked_validation
from effconv_core.engine.within import PlansWithin
from effconv_core.layers.batch_checks import check_ambient, check_learnable
from effconv_core.method.searchable import SearchableCNN
from effconv_core.plan import Size
from effconv_core.space.search_space import flat
from effconv_core.space.selection import LayerFilter, Ranges

LEVEL = 0.05  # of the tests
STEPS = 64  # of a training, unless the config says how many


@dataclass(frozen=True)
class Probe:
    """How much the loss after a short training depends on the sizes.

    Attributes:
        matters: whether plans of one cost differ more than trainings of one plan (an F-test of both
            variances, at the 5 % level).
        spread: standard deviation of the losses of random plans.
        noise: standard deviation of the losses of the original sizes, from other initial kernels.
        original_loss: mean loss of the original sizes.
        best_loss: the least loss of a random plan; the least of many is lower by chance.
        best: that plan, layer name to size.
        layers: for each layer Spearman's correlation of its size with the loss over the random
            plans. Below zero, larger kernels go with a lower loss.
        certain: the layers whose correlation is not one of chance at the 5 % level, of which one
            layer in twenty is so by chance.
        plans: number of random plans.
        repeats: number of trainings of the original sizes.
        steps: steps of each training.
    """

    matters: bool
    spread: float
    noise: float
    original_loss: float
    best_loss: float
    best: dict[str, Size]
    layers: dict[str, float]
    certain: tuple[str, ...]
    plans: int
    repeats: int
    steps: int


def probe(
    model: nn.Module,
    loader: Iterable[tuple[Any, Any]],
    *,
    budget: Budgets | None = None,
    config: SearchConfig | None = None,
    criterion: Callable[[Any, Any], Tensor] = F.cross_entropy,
    searched: LayerFilter | None = None,
    allowed: Ranges | None = None,
    plans: int = 16,
    repeats: int = 6,
    group: dist.ProcessGroup | None = None,
    validation: Iterable[tuple[Any, Any]] | None = None,
) -> Probe:
    """Train random plans of one cost for a short while, to see whether kernel sizes matter.

    All are trained side by side on the same batches, and tested on others. It takes
    `(plans + repeats) * config.race_steps` training steps.

    Args:
        model: as for `search`; not changed.
        loader: training batches, at least five an epoch.
        budget: as for `search`; None is the cost of the network's own sizes.
        config: as for `search`; None is the recipe `bank` with `race_steps` of 64.
        criterion: as for `search`.
        searched: as for `search`.
        allowed: as for `search`.
        plans: number of random plans, at least 4.
        repeats: trainings of the original sizes from other initial kernels, at least 2.
        group: as for `search`.
        validation: as for `search`.

    Raises:
        ValueError: if there are too few batches, plans or repeats, or as `search` does.
        FloatingPointError: if a loss is not finite.
        RuntimeError: if a rank has failed, or has another number of batches; on all ranks.
    """
    device = device_of(model)
    with together(group, device):
        if plans < 4 or repeats < 2:
            raise ValueError(
                f"plans is {plans} and repeats is {repeats}; a spread needs at least 4 and 2, so "
                "pass more"
            )
        check_read_again(loader)
        config = recipe("bank", race_steps=STEPS) if config is None else config
        if not config.race_steps:
            raise ValueError("race_steps of the config is 0; pass how many steps a plan is trained")
        searchable = SearchableCNN(model, config, searched=searched, allowed=allowed)
        check_learnable(searchable.model, criterion)
        check_ambient(searchable.model)
        if budget is None:
            budget = searchable.cost(flat(searchable.original_sizes.values()))
        tested = checked_validation(model, validation, criterion)
        steps = checked_steps(loader, device, holds_out=tested is None)
        given = loader, criterion, steps, 0, device, group, validation, tested
        trials = Trials(model, config, *given)
        drawn = PlansWithin(searchable, budget).random(plans, config.seed)
        if len(drawn) < 4:
            raise ValueError(
                f"{len(drawn)} plans are within the budget; a spread needs at least 4, so pass "
                "another budget or raise the tolerance"
            )
    same = {"config": asdict(config), "repeats": repeats}
    same |= {"number of batches": steps, "number of validation batches": tested}
    check_same({**same, "random plans": drawn}, device, group)
    sizes = [searchable.space.by_layer(plan) for plan in drawn]
    seeds = [config.seed * PARTS * repeats + PARTS * number for number in range(repeats)]
    original = [
        trials.run([searchable.original_sizes], steps=config.race_steps, seed=seed, epoch=0)[0].loss
        for seed in seeds
    ]
    results = trials.run(sizes, steps=config.race_steps, seed=seeds[0], epoch=0)
    losses = [result.loss for result in results]
    if not np.isfinite([*losses, *original]).all():
        raise FloatingPointError("a loss is not finite; lower cnn_lr or check the data")
    spread, noise = float(np.std(losses, ddof=1)), float(np.std(original, ddof=1))
    by_chance = scipy.stats.f.sf((spread / max(noise, 1e-12)) ** 2, len(losses) - 1, repeats - 1)
    correlations, certain = {}, []
    for place, layer in enumerate(searchable.space.layers):
        taps = [np.prod(plan[searchable.space.entries(place)]) for plan in drawn]
        if len(set(taps)) == 1 or len(set(losses)) == 1:
            correlations[layer.name] = 0.0
            continue
        found = scipy.stats.spearmanr(taps, losses)
        correlations[layer.name] = float(found.statistic)
        if found.pvalue < LEVEL:
            certain.append(layer.name)
    return Probe(
        matters=bool(by_chance < LEVEL),
        spread=spread,
        noise=noise,
        original_loss=float(np.mean(original)),
        best_loss=min(losses),
        best=sizes[int(np.argmin(losses))],
        layers=correlations,
        certain=tuple(certain),
        plans=len(losses),
        repeats=repeats,
        steps=config.race_steps,
    )
