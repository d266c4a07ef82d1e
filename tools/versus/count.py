"""What a search costs, in steps of a training."""

import torch
import torch.nn.functional as F
from torch import Tensor


class Count:
    """Training steps and forward passes that a search has made, of one batch each."""

    def __init__(self) -> None:
        self.steps = 0
        self.forwards = 0.0

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Give the cross entropy, and count a step, or without gradients a forward pass."""
        if torch.is_grad_enabled():
            self.step()
        else:
            self.forward()
        return F.cross_entropy(outputs, targets)

    def step(self, _: object = None) -> None:
        """Count a training step."""
        self.steps += 1

    def forward(self, batches: float = 1) -> None:
        """Count a forward pass, over a part of a batch or a whole one."""
        self.forwards += batches

    @property
    def equivalent(self) -> float:
        """All of it in training steps: of one, the forward pass is about a third."""
        return self.steps + self.forwards / 3
