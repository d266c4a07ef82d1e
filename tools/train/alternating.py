"""Alternating (bilevel) optimisation: a second optimizer on other parameters and other data."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from effconv_data import Batches
from torch import Tensor, nn


class Turns:
    """A second optimizer that alternates with the first, on other parameters and other data.

    Args:
        parameters: the parameters that it trains.
        batches: its training batches; repeated if an epoch has fewer than the first's.
        optimizer: the optimizer of these parameters.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        batches: Batches,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.parameters, self.batches, self.optimizer = list(parameters), batches, optimizer

    def passes(self, epoch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the `steps` batches of one epoch; they depend only on the epoch."""
        needed = math.ceil(steps / len(self.batches))
        for number in range(epoch * needed, (epoch + 1) * needed):
            self.batches.set_epoch(number)
            yield from self.batches

    def step(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Take one step of the second optimizer."""
        loss = F.cross_entropy(model(images), labels)
        # Not backward, which would also compute the gradients of all the model's weights.
        gradients = torch.autograd.grad(loss, self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()

    def saved_with(self, first: torch.optim.Optimizer) -> "SavedTogether":
        """Return both optimizers as one, for saving and loading."""
        return SavedTogether(first, self.optimizer)


class SavedTogether:
    """Two optimizers as one, for saving and loading."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.first, self.second = first, second
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
