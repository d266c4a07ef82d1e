"""Whether the outputs of a network are scores of classes, of which an accuracy can be known."""

import math
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def are_samples(outputs: Any, targets: Any) -> bool:
    """Return whether outputs and targets are tensors of the same several samples."""
    tensors = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    if not tensors or not outputs.dim() or not targets.dim() or not outputs.is_floating_point():
        return False
    return len(outputs) == len(targets) > 1


def hits(criterion: Any, outputs: Any, targets: Any, loss: Tensor) -> Tensor:
    """Return the share of samples with the highest score at the target, NaN without scores."""
    if not are_classes(criterion, outputs, targets):
        return torch.full_like(loss.detach(), math.nan)
    return (outputs.detach().argmax(1) == targets).to(loss.dtype).mean()


def are_classes(criterion: Any, outputs: Any, targets: Any) -> bool:
    """Return whether outputs are scores of classes, `(B, classes)`, and targets are indices `(B,)`.

    To a criterion other than cross entropy they are if, where all outputs are nearly equal, the
    loss falls fastest with that output of a sample which is at its target. In an embedding, or the
    similarities of the samples of a batch, no output belongs to a label.
    """
    tensors = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    if not tensors or outputs.dim() != 2 or outputs.shape[1] < 2 or outputs.is_complex():
        return False
    # A criterion of its own may take one target for several outputs.
    if targets.is_floating_point() or targets.shape != outputs.shape[:1]:
        return False
    if criterion is F.cross_entropy:
        return True
    with torch.enable_grad(), suppress(Exception):  # a criterion need not take them
        noise = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(outputs)
        mean = outputs.detach().mean()  # of probabilities a small one, and all of them positive
        near = (mean + 0.01 * mean.abs().clamp(1e-4, 1) * noise).requires_grad_()
        (slope,) = torch.autograd.grad(criterion(near, targets).sum(), near)
        counted = (slope != 0).any(1)  # others are left out, as by ignore_index
        return bool(counted.any() and (slope.argmin(1) == targets)[counted].all())
    return False
