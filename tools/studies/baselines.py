"""Baselines that find a plan within a given number of training steps."""

import itertools
from collections.abc import Callable, Iterator

import optuna
import torch
import torch.nn.functional as F
from effconv_core import apply_plan
from effconv_core.engine.train import make_optimizer
from torch import Tensor, nn

from tools.studies.small_spaces import Space

Criterion = Callable[[Tensor, Tensor], Tensor]

START = 8  # number of plans
SMOOTHED = 10  # number of last steps of a trial whose mean training loss is its value


def steps_allowed(space: Space) -> int:
    """Return a fifth of the steps of one training from scratch."""
    return len(space.batches("train", 0)) * space.train.epochs // 5


def halving(space: Space, allowed: int, seed: int) -> dict[str, int]:
    """Train random plans, drop the worse half by training loss, and continue with the rest.

    Each of the three rounds costs the same.
    """
    trials = [Trial(space, plan, seed) for plan in space.draw_plans(START, seed)]
    rounds = START.bit_length() - 1
    for _ in range(rounds):
        steps = allowed // rounds // len(trials)
        losses = [trial.train(steps) for trial in trials]
        best_first = sorted(range(len(trials)), key=losses.__getitem__)
        trials = [trials[i] for i in best_first[: len(trials) // 2]]
    return trials[0].plan


def tpe(
    space: Space, allowed: int, seed: int, criterion: Criterion = F.cross_entropy
) -> dict[str, int]:
    """Search sizes with Optuna's TPE, training each for an eighth of the steps; return the best.

    A proposal is a soft size for each layer; the plan nearest to it within the budget is trained.
    """
    searchable = space.searchable()
    largest = searchable.config.largest
    best: tuple[float, dict[str, int]] = (float("inf"), {})
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=START // 2)
    )
    for _ in range(START):
        proposal = study.ask()
        soft_sizes = [proposal.suggest_float(n, 1, largest) for n in searchable.layers]
        sizes = searchable.nearest_sizes(soft_sizes, space.budget)
        plan = dict(zip(searchable.layers, sizes, strict=True))
        loss = Trial(space, plan, seed, criterion).train(allowed // START)
        study.tell(proposal, loss)
        best = min(best, (loss, plan), key=lambda entry: entry[0])
    return best[1]


class Trial:
    """One plan in training, as in the ground truth but at a constant rate."""

    def __init__(
        self,
        space: Space,
        plan: dict[str, int],
        seed: int,
        criterion: Criterion = F.cross_entropy,
    ) -> None:
        self.plan, self.criterion = plan, criterion
        self.lower = space.train.precision == "bfloat16"
        generator = torch.Generator().manual_seed(seed)
        self.cnn: nn.Module = apply_plan(space.network(seed), plan, generator=generator)
        self.cnn = self.cnn.to(memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(self.cnn.parameters(), space.train)
        self.batches = self._batches(space, seed)

    @staticmethod
    def _batches(space: Space, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        batches = space.batches("train", seed)
        for epoch in itertools.count():
            batches.set_epoch(epoch)
            yield from list(batches)  # other trials set the epoch of the same batches

    def train(self, steps: int) -> float:
        """Continue training; return the mean loss of the last steps."""
        losses = []
        for images, labels in itertools.islice(self.batches, steps):
            with torch.autocast(images.device.type, torch.bfloat16, self.lower):
                outputs = self.cnn(images)
            loss = self.criterion(outputs.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        last = losses[-SMOOTHED:]
        return sum(last) / len(last)
