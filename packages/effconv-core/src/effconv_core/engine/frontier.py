"""`frontier`: plans of many costs after one search, with what each loses or gains."""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from effconv_core.cost.base import Counter, TapCost
from effconv_core.cost.budget import Budget, Budgets, as_budgets
from effconv_core.distributed.consistency import check_same, leads
from effconv_core.distributed.failures import called_together, device_of, together
from effconv_core.distributed.stages import remembering
from effconv_core.engine.loader import check_read_again
from effconv_core.engine.proposals import BALANCED, SLOPES, KernelLosses
from effconv_core.engine.race import Trials, checked_steps, checked_validation
from effconv_core.engine.within import PlansWithin
from effconv_core.io.atomic import write_text
from effconv_core.io.kinds import check_kind
from effconv_core.io.plan_checks import check_allowed, check_sizes
from effconv_core.io.progress_bar import check_bar, shown
from effconv_core.io.read_json import LIMIT, conform, decode_json, read_limited
from effconv_core.io.schemas import Count
from effconv_core.layers.batch_checks import check_ambient, check_learnable
from effconv_core.method.searchable import SearchableCNN
from effconv_core.plan import Size, SizePlan
from effconv_core.scalars import plain
from effconv_core.space.search_space import flat

SCHEMA = 1
AMOUNTS = 9
STEPS = 60  # of a training, at most
RANDOM = 16  # plans of a cost that are compared on the search's own kernels
TRAINED = 4  # of these, and of plans of given shapes, that are trained

Row = tuple[list[int], float | None, Count, Count]
"""A plan, its loss if it is finite, the number of plans trained, and that of forward passes."""


@dataclass(frozen=True)
class FrontierPoint:
    """A plan, its cost and its loss.

    Attributes:
        sizes: layer name to size.
        cost: in the unit of the frontier.
        loss: on held-out batches, after a short training; comparable within one frontier only.
    """

    sizes: dict[str, Size]
    cost: int
    loss: float


@dataclass(frozen=True)
class Frontier:
    """Plans of which none costs as little and has as low a loss as another.

    Attributes:
        counts: what costs are, such as `"parameters"`.
        points: by rising cost, and so by falling loss.
        original: the network's own sizes, on the same batches; they need not be one of the points.
        steps: steps of each training.
        spent: training steps that all of it took, a forward pass counted as a third.
        allowed: layer name to smallest and largest size and step.
    """

    counts: str
    points: tuple[FrontierPoint, ...]
    original: FrontierPoint
    steps: int
    spent: int
    allowed: dict[str, tuple[int, int, int]]

    @property
    def knee(self) -> FrontierPoint:
        """The point farthest below the straight line from the cheapest to the dearest point.

        Costs are taken on a logarithmic scale. A choice for who has no budget in mind.
        """
        costs = np.log([point.cost for point in self.points])
        losses = np.array([point.loss for point in self.points])
        if len(self.points) < 3:
            return self.points[-1]
        along = (costs - costs[0]) / (costs[-1] - costs[0])
        below = losses[0] + along * (losses[-1] - losses[0]) - losses
        return self.points[int(np.argmax(below))]

    def plan(self, searchable: SearchableCNN, budget: Budgets) -> SizePlan:
        """Return a plan for any budget, of the proportions of the points around it.

        Args:
            searchable: the network.
            budget: as for `search`; the first, if there are several, says where on the frontier.

        Raises:
            ValueError: if the network or the unit of the budget is not that of the frontier, or the
                budget cannot be met.
        """
        layers = list(self.original.sizes)
        if layers != searchable.layers:
            raise ValueError(
                f"the frontier is of the layers {layers[:3]} ..., and the network has "
                f"{searchable.layers[:3]} ...; pass the network that was searched"
            )
        cost_of = searchable.constraints(budget)[0].cost
        if cost_of.counts != self.counts:
            raise ValueError(
                f"the budget counts {cost_of.counts}, and the frontier {self.counts}; pass a "
                f"budget in {self.counts}"
            )
        own = cost_of(flat(searchable.original_sizes.values()))
        # What is measured may differ from one time to another.
        if isinstance(cost_of, TapCost) and own != self.original.cost:
            raise ValueError(
                f"the network's own sizes cost {own:,} {self.counts}, and in the frontier "
                f"{self.original.cost:,}; pass the network that was searched, with the same number "
                "of classes and inputs of the same shape"
            )
        within, amount = PlansWithin(searchable, budget), as_budgets(budget)[0].amount
        costs = np.log([point.cost for point in self.points])
        sizes = np.log([within.free(flat(point.sizes.values())) for point in self.points])
        between = np.exp([np.interp(math.log(amount), costs, column) for column in sizes.T])
        return searchable.plan_of(within.nearest(between), within.expanded(between), budget)

    def to_json(self) -> str:
        """Return the frontier as JSON with a schema version."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Frontier":
        """Read a frontier that `to_json` wrote.

        Raises:
            ValueError: if the text is not such a frontier; the message says what is wrong.
        """
        content = decode_json(text, Any, what="the frontier")
        check_kind(content, "a frontier", (SCHEMA,))
        del content["schema"]
        frontier = conform(content, cls, what="the frontier")
        points = (*frontier.points, frontier.original)
        for point in points:
            check_sizes(point.sizes)
        check_allowed(frontier.allowed)
        costs = [point.cost for point in frontier.points]
        layers = {tuple(frontier.allowed), *(tuple(point.sizes) for point in points)}
        if not costs or min(costs) < 1 or costs != sorted(set(costs)) or len(layers) > 1:
            raise ValueError(
                "the frontier has no points of rising cost and of the same layers; make it again"
            )
        return frontier

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the frontier to a JSON file, whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Frontier":
        """Read a frontier from a JSON file.

        Raises:
            ValueError: if the file holds none; the message names the file.
        """
        text = read_limited(path, LIMIT)
        try:
            return cls.from_json(text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def frontier(
    searchable: SearchableCNN,
    loader: Iterable[tuple[Any, Any]],
    *,
    counter: Counter | None = None,
    amounts: Sequence[float] | None = None,
    criterion: Callable[[Any, Any], Tensor] = F.cross_entropy,
    on_amount: Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool = False,
    group: dist.ProcessGroup | None = None,
    validation: Iterable[tuple[Any, Any]] | None = None,
) -> Frontier:
    """Return good plans of many costs, from the kernels of one search and short trainings.

    At each amount plans of several shapes and random ones are compared on the search's own kernels;
    the best of them, the original's and the learned proportions are trained from fresh kernels for
    60 steps (`race_steps` if fewer), all on the same batches, and tested on batches held out. That
    with the best rank by both measures stands for the amount. Plans that cost more than another and
    have no lower loss are left out.

    Args:
        searchable: after a search: pass a `SearchableCNN` to `search`, or load its state.
        loader: as for `search`, with at least five batches an epoch.
        counter: what is counted, such as `Macs(example)`; None counts parameters.
        amounts: costs; equal ones count once. None takes nine, from half to twice what the
            network's own sizes cost, as far as there are plans.
        criterion: the task's loss of `(outputs, targets)`, a scalar.
        on_amount: called before each amount with its number, from 1, and how many there are.
        checkpoint: a JSON file that keeps the amounts that are done; if it exists, they are not
            repeated. None keeps nothing.
        settings: a JSON value of what else the checkpoint has to agree in, such as the name of the
            data and the batch size, which cannot be told from the loader.
        progress: as for `search`.
        group: as for `search`.
        validation: as for `search`.

    Raises:
        ValueError: if there are too few batches, no amounts, or one that no plan meets, gradients
            are off or autocast is on around it, or the checkpoint is of another network, search,
            amounts, settings or number of batches (those beyond 120 make no difference).
        FloatingPointError: if the loss of the original sizes, or of all plans, is not finite.
        RuntimeError: if a rank has failed, or has another number of batches; on all ranks.
    """
    device = device_of(searchable)
    with together(group, device):
        if progress and leads(group):
            check_bar()
        check_read_again(loader)
        check_learnable(searchable.model, criterion)
        check_ambient(searchable.model)
        config, space = searchable.config, searchable.space
        original = flat(searchable.original_sizes.values())
        cost_of = searchable.constraints(Budget(1.0, counter, at_most=True))[0].cost
        own = cost_of(original)
        if amounts is None:
            least, most = cost_of(space.smallest()), cost_of(space.largest())
            near = min(max(own, least), most)  # its own sizes need not be allowed
            low, high = max(near / 2, least), min(near * 2, most)
            amounts = np.geomspace(low, high, AMOUNTS).clip(low, high).tolist()
        amounts = list(dict.fromkeys(map(plain, amounts)))
        if not amounts:
            raise ValueError("amounts is empty; pass at least one cost")
        for amount in amounts:  # raises before any training if there is no such plan
            searchable.plan(Budget(amount, counter, at_most=True))
        tested = checked_validation(searchable.source[0], validation, criterion)
        steps = checked_steps(loader, device, holds_out=tested is None)
        length = min(config.race_steps or STEPS, STEPS)
        epochs = config.epochs_of(steps)
        given = loader, criterion, steps, epochs, device, group, validation, tested
        trials = Trials(searchable.source[0], config, *given)
        losses = KernelLosses(searchable, trials)

        def trained(plans: Sequence[Sequence[int]]) -> list[float]:
            sizes = [space.by_layer(plan) for plan in plans]
            return [r.loss for r in trials.run(sizes, steps=length, seed=config.seed, epoch=0)]

        learned = flat(searchable.plan().soft_sizes.values())
        of = {
            "network": [searchable.layers, original, own],
            "search": [asdict(config), learned],
            "amounts": [cost_of.counts, *amounts],
            "number of batches": steps,
            "settings": dict(settings or {}),
            **({} if tested is None else {"number of validation batches": tested}),
            # Files of before 0.9.0 have only the steps of the search's config.
            **({} if length == config.race_steps else {"steps": length}),
        }
    check_same({**of, "number of validation batches": tested}, device, group)
    remember = remembering(checkpoint, of, group=group, device=device)

    def best_at(amount: float) -> list[Any]:
        """Return the best plan at a cost, its loss, and how many were trained and compared."""
        before = losses.passes
        within = PlansWithin(searchable, Budget(amount, counter, at_most=True))
        always = [within.nearest(within.start), within.nearest(within.free(learned))]
        shapes = [within.balanced(BALANCED), *map(within.sloped, SLOPES)]
        drawn = [*map(within.nearest, shapes)]
        drawn += within.random(RANDOM, config.seed)
        best = sorted(set(drawn) - set(always), key=lambda plan: (losses(plan), plan))
        plans = list(dict.fromkeys([*always, *best]))[:TRAINED]
        results = trained(plans)
        rank = scipy.stats.rankdata
        ranks = rank(results) + rank([losses(plan) for plan in plans])
        chosen = int(np.lexsort((results, ranks))[0])
        loss = results[chosen] if math.isfinite(results[chosen]) else None  # JSON has no infinity
        return [plans[chosen], loss, len(plans), losses.passes - before]

    def loss_of_original() -> float:
        (loss,) = trained([original])
        if not math.isfinite(loss):
            raise FloatingPointError(
                "the loss of the original sizes is not finite; lower cnn_lr or check the data"
            )
        return loss

    original_loss = conform(remember("original", loss_of_original), float, what=f"{checkpoint}")
    found: dict[tuple[int, ...], float] = {}
    trainings, passes = 1, 0
    show = progress and leads(group)
    with shown("frontier", None, on_round=on_amount, show=show) as (_, on_amount):
        said = called_together(on_amount, group, device)
        for number, amount in enumerate(amounts):
            said(number + 1, len(amounts))
            row = remember(f"amount {number}", lambda amount=amount: best_at(amount))
            plan, loss, trained_here, passes_here = conform(row, Row, what=f"{checkpoint}")
            if not space.allows(plan):
                raise ValueError(
                    f"{checkpoint} has a plan that no such search makes; pass another name"
                )
            found[tuple(plan)] = math.inf if loss is None else loss
            trainings, passes = trainings + trained_here, passes + passes_here
    rows = sorted((cost_of(plan), loss, plan) for plan, loss in found.items())
    points: list[FrontierPoint] = []
    for cost, loss, plan in rows:
        if loss < min((point.loss for point in points), default=math.inf):
            points.append(FrontierPoint(space.by_layer(plan), cost, loss))
    if not points:
        raise FloatingPointError("no plan has a finite loss; lower cnn_lr or check the data")
    spent = trials.cost(trainings, length) + -(-passes // 3)
    return Frontier(
        cost_of.counts,
        tuple(points),
        FrontierPoint(searchable.original_sizes, own, original_loss),
        length,
        spent,
        {
            layer.name: (layer.allowed[0], layer.allowed[-1], layer.allowed.step)
            for layer in space.layers
        },
    )
