"""Cost of a search in training steps."""

import torch
import torch.nn.functional as F
from torch import Tensor


class Count:
    """Counts the training steps and forward passes of a search, of one batch each."""

    def __init__(self) -> None:
        self.steps = 0
        self.forwards = 0.0

    def criterion(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy; count a step, or without gradients a forward pass."""
        if torch.is_grad_enabled():
            self.step()
        else:
            self.forward()
        return F.cross_entropy(outputs, targets)

    def step(self, _: object = None) -> None:
        """Count a training step."""
        self.steps += 1

    def forward(self, batches: float = 1) -> None:
        """Count a forward pass, over a whole batch or a part."""
        self.forwards += batches

    @property
    def equivalent(self) -> float:
        """The total in training steps: a forward pass counts as a third of one."""
        return self.steps + self.forwards / 3
