"""Train and test a plain CNN (EffConv Algorithm 1, lines 9 to 11)."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from effconv_core import load_training_state, save_training_state
from effconv_core.checkpoint import last_state
from effconv_core.divergence import check_parameters, finite_soon, no_finite_loss
from effconv_data import Batches
from torch import Tensor, nn


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training from scratch."""

    epochs: int = 200
    batch_size: int = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    schedule: Literal["steps", "cosine"] = "steps"
    """steps: a tenth of the rate after 50 % and after 75 % of the training."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up, but at most a tenth of the training."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("weight_decay", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(
                    f"{name} of the training is {getattr(self, name)}; it must be at least {least}"
                )
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr of the training is {self.lr}; it must be above 0, so raise it")
        if not self.warmup_epochs >= 0:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; it must be 0 or more")


TRAIN_RECIPES = {
    # He et al. 2016, section 4.2.
    "resnet": TrainConfig(),
    # The commands that the FlexConv repository gives for its CIFAR ResNets.
    "flexconv": TrainConfig(350, 64, "adam", 1e-3, 0.0, "cosine", 5.0),
}


@dataclass(frozen=True)
class TrainStep:
    """What one step of a training did; tensors stay on the device."""

    epoch: int
    step: int
    task_loss: Tensor
    outputs: Tensor
    targets: Tensor


def rate_factor(config: TrainConfig, epoch: float) -> float:
    """Give what the learning rate is multiplied by after so many epochs, a fraction included."""
    warmup = min(config.warmup_epochs, config.epochs / 10)
    if epoch < warmup:
        return epoch / warmup
    done = epoch / config.epochs
    if config.schedule == "steps":
        return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (config.epochs - warmup)))


def train(
    model: nn.Module,
    batches: Batches,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    on_step: Callable[[TrainStep], None] | None = None,
) -> None:
    """Train a network in place.

    Args:
        model: the network, on the device of the batches.
        batches: training batches; one pass is one epoch.
        config: settings.
        checkpoint: a file that is written after every epoch and, where it exists, gone on from.
        on_step: called after every step.

    Raises:
        FloatingPointError: if a loss is not finite; the sentence names the step, the layer and the
            last good checkpoint.
        ValueError: if the checkpoint belongs to another training.
    """
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(), config.lr, momentum=0.9, weight_decay=config.weight_decay
        )
    else:
        optimizer = torch.optim.Adam(
            model.parameters(), config.lr, weight_decay=config.weight_decay
        )
    first_epoch = 0
    if checkpoint is not None and checkpoint.exists():
        progress = load_training_state(checkpoint, model, optimizer)
        if progress["config"] != asdict(config):
            raise ValueError(
                f"{checkpoint} was written with other training settings, {progress['config']}; "
                "train with the same, or delete it to start again"
            )
        first_epoch = progress["epoch"]
    model.train()
    for epoch in range(first_epoch, config.epochs):
        batches.set_epoch(epoch)
        for step, (images, labels) in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * rate_factor(config, epoch + step / len(batches))
            outputs = model(images)
            loss = F.cross_entropy(outputs, labels)
            is_finite = finite_soon(loss)
            optimizer.zero_grad()
            loss.backward()
            if not is_finite():
                error = no_finite_loss(model, (images, labels), loss=loss, epoch=epoch, step=step)
                raise FloatingPointError(f"{error}; {last_state(checkpoint, epoch)}")
            optimizer.step()
            if on_step is not None:
                on_step(TrainStep(epoch, step, loss.detach(), outputs.detach(), labels))
        check_parameters(model, epoch)
        if checkpoint is not None:
            progress = {"config": asdict(config), "epoch": epoch + 1}
            save_training_state(checkpoint, model, optimizer, progress)


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches) -> float:
    """Give the accuracy on a split, from 0 to 1, in evaluation mode."""
    model.eval()
    correct = sum((model(images).argmax(1) == labels).sum() for images, labels in batches)
    return correct.item() / batches.samples
