"""Two optimizers in turns: on other parameters, and on another part of the data."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from effconv_data import Batches
from torch import Tensor, nn


class Turns:
    """A second optimizer that takes turns with the first, on other parameters and other data.

    Args:
        parameters: what it trains.
        batches: its training batches; where an epoch has fewer than the first's, it has several.
        optimizer: of these parameters.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        batches: Batches,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.parameters, self.batches, self.optimizer = list(parameters), batches, optimizer

    def passes(self, epoch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the batches of one epoch of so many steps, a function of the epoch alone."""
        needed = math.ceil(steps / len(self.batches))
        for number in range(epoch * needed, (epoch + 1) * needed):
            self.batches.set_epoch(number)
            yield from self.batches

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Take one turn."""
        loss = F.cross_entropy(model(images), labels)
        # Not backward, which would compute the gradients of all the model's weights too.
        gradients = torch.autograd.grad(loss, self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def saved_with(self, first: torch.optim.Optimizer) -> "SavedTogether":
        """Give both optimizers as one, as far as saving and loading go."""
        return SavedTogether(first, self.optimizer)


class SavedTogether:
    """Two optimizers as one, as far as saving and loading go."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.first, self.second = first, second
        self.groups = len(first.param_groups)
        self.shift = sum(len(group["params"]) for group in first.param_groups)

    @property
    def state(self) -> dict[nn.Parameter, dict[str, Any]]:
        """What both keep of each parameter."""
        return {**self.first.state, **self.second.state}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The first's groups, and behind them the second's."""
        return [*self.first.param_groups, *self.second.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Give the state of both; the second's parameters are numbered behind the first's."""
        first, second = self.first.state_dict(), self.second.state_dict()
        shifted = {number + self.shift: slots for number, slots in second["state"].items()}
        groups = [_numbered(group, self.shift) for group in second["param_groups"]]
        return {
            "state": first["state"] | shifted,
            "param_groups": first["param_groups"] + groups,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
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
