"""Alternating (bilevel) optimisation: a second optimizer on other parameters and other data."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from effconv_core.engine.train import TrainConfig, TrainStep, make_optimizer
from effconv_data import Batches
from torch import Tensor, nn


def alternating(
    model: nn.Module,
    config: TrainConfig,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    steps: int,
) -> tuple["SavedTogether", Callable[[TrainStep], None]]:
    """Return what `train` takes as `optimizer` and `on_step` so that two optimizers alternate.

    Args:
        model: the network that is trained.
        config: of the first optimizer, which has the parameters that the second has not.
        optimizer: the second one; its rates stay as they are.
        batches: its training batches; repeated if an epoch has fewer than the first's.
        steps: number of the first's batches an epoch.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    others = [p for p in model.parameters() if all(p is not mine for mine in parameters)]
    rates = [group["lr"] for group in optimizer.param_groups]
    epoch_of: dict[int, Iterator[tuple[Tensor, Tensor]]] = {}

    def passes(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one epoch; they depend only on the epoch."""
        needed = math.ceil(steps / len(batches))
        for number in range(epoch * needed, (epoch + 1) * needed):
            batches.set_epoch(number)
            yield from batches

    def take_step(step: TrainStep) -> None:
        if step.epoch not in epoch_of:
            epoch_of.clear()
            epoch_of[step.epoch] = passes(step.epoch)
        images, labels = next(epoch_of[step.epoch])
        loss = F.cross_entropy(model(images), labels)
        # Not backward, which would also compute the gradients of all the model's weights.
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate  # `train` schedules those of all groups that it sees
        optimizer.step()

    return SavedTogether(make_optimizer(others, config), optimizer), take_step


class SavedTogether:
    """Two optimizers, of which the first takes the steps, as one for saving and loading."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.first, self.second = first, second
        self.step, self.zero_grad = first.step, first.zero_grad
        self.groups = len(first.param_groups)
        self.shift = sum(len(group["params"]) for group in first.param_groups)

    @property
    def state(self) -> dict[nn.Parameter, dict[str, Any]]:
        """The state of both for each parameter."""
        return {**self.first.state, **self.second.state}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The first's groups, and behind them the second's."""
        return [*self.first.param_groups, *self.second.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both; the second's parameters are numbered after the first's."""
        first, second = self.first.state_dict(), self.second.state_dict()
        shifted = {number + self.shift: slots for number, slots in second["state"].items()}
        groups = [_numbered(group, self.shift) for group in second["param_groups"]]
        return {
            "state": first["state"] | shifted,
            "param_groups": first["param_groups"] + groups,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        slots, groups = state["state"], state["param_groups"]
        self.first.load_state_dict(
            {
                "state": {n: s for n, s in slots.items() if n < self.shift},
                "param_groups": groups[: self.groups],
            }
        )
        self.second.load_state_dict(
            {
                "state": {n - self.shift: s for n, s in slots.items() if n >= self.shift},
                "param_groups": [_numbered(g, -self.shift) for g in groups[self.groups :]],
            }
        )


def _numbered(group: dict[str, Any], shift: int) -> dict[str, Any]:
    return {**group, "params": [number + shift for number in group["params"]]}
