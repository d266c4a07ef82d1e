"""Train and test a plain CNN (EffConv Algorithm 1, lines 9 to 11)."""

import math
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from effconv_core.config import recipe_name
from effconv_core.distributed.consistency import check_same, leads
from effconv_core.distributed.failures import device_of, in_lockstep, together
from effconv_core.engine.loader import (
    as_pair,
    batch_count,
    check_last_batch,
    check_read_again,
    epoch_batches,
)
from effconv_core.engine.nonfinite import check_parameters, finite_soon, no_finite_loss
from effconv_core.io.checkpoint import (
    check_epoch,
    check_progress,
    check_writable,
    kept_by,
    last_state,
    put_training_state,
    read_training_state,
    save_training_state,
)
from effconv_core.io.progress_bar import check_bar, shown
from effconv_core.layers.batch_checks import (
    IGNORED,
    check_ambient,
    check_targets,
    checked_loss,
    explained_pass,
)
from effconv_core.layers.inputs import in_float32, on_device, run_on
from effconv_core.layers.own_state import check_own_state
from effconv_core.rng import seeded
from effconv_core.scalars import plain


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training from scratch."""

    epochs: int = 200
    batch_size: int = 128
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    schedule: Literal["steps", "cosine"] = "steps"
    """steps: divide the rate by 10 after 50 % and after 75 % of the training."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up, but at most a tenth of the training."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is PyTorch's autocast: weights and their updates stay in float32. It is slower than
    float32 on a processor without instructions for bfloat16."""
    compile: bool = False
    """Run the network through `torch.compile`, which takes a while before the first step. PyTorch
    compiles eight networks of one class per process and runs all further ones uncompiled: call
    `torch.compiler.reset()` between trainings of more plans than that."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, plain(getattr(self, entry.name)))
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} of the training is {value!r}; pass an integer")
        for name, least in (("epochs", 1), ("batch_size", 1), ("weight_decay", 0)):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name} of the training is {getattr(self, name)}; it must be at least {least} "
                    "and finite"
                )
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr of the training is {self.lr}; it must be above 0, so raise it")
        for name, allowed in {
            "optimizer": ("sgd", "adam"),
            "schedule": ("steps", "cosine"),
            "precision": ("float32", "bfloat16"),
        }.items():
            if getattr(self, name) not in allowed:
                told = " or ".join(map(repr, allowed))
                raise ValueError(f"{name} is {getattr(self, name)!r}; pass {told}")
        if not self.warmup_epochs >= 0:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; it must be 0 or more")


TRAIN_RECIPES = {
    # He et al. 2016, section 4.2.
    "resnet": TrainConfig(),
    # From the commands of the FlexConv repository for its CIFAR ResNets.
    "flexconv": TrainConfig(350, 64, "adam", 1e-3, 0.0, "cosine", 5.0),
}


def training_of(recipe: str) -> TrainConfig:
    """Return the training settings that go with a recipe of the search, a key of `RECIPES`."""
    return TRAIN_RECIPES["resnet" if recipe_name(recipe) == "bank" else "flexconv"]


@dataclass(frozen=True)
class TrainStep:
    """The result of one training step; tensors stay on the device.

    Attributes:
        epoch: counted from 0.
        step: index of the step in its epoch, counted from 0.
        task_loss: scalar, detached, without the penalty.
        outputs: `(B, classes)`, detached.
        targets: `(B,)`.
        rate: the learning rate of the step; None if it is not known.
    """

    epoch: int
    step: int
    task_loss: Tensor
    outputs: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    rate: float | None = None


def rate_factor(config: TrainConfig, epoch: float) -> float:
    """Return the learning rate's factor, 0 to 1, after `epoch` epochs, which may be fractional."""
    warmup = min(config.warmup_epochs, config.epochs / 10)
    if epoch < warmup:
        return epoch / warmup
    done = epoch / config.epochs
    if config.schedule == "steps":
        return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (config.epochs - warmup)))


def make_optimizer(
    parameters: Iterable[Tensor] | Iterable[dict[str, Any]], config: TrainConfig
) -> torch.optim.Optimizer:
    """Build the optimizer of a training, at its highest learning rate.

    Args:
        parameters: those of the network, or groups of them, each a mapping with `params` and a
            `factor` on the learning rate.
        config: settings.
    """
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, config.lr, momentum=0.9, weight_decay=config.weight_decay
        )
    return torch.optim.Adam(parameters, config.lr, weight_decay=config.weight_decay)


def train(
    model: nn.Module,
    loader: Iterable[tuple[Any, Any]],
    config: TrainConfig,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    on_step: Callable[[TrainStep], None] | None = None,
    penalty: Callable[[], Tensor] | None = None,
    seed: int | None = None,
    progress: bool = False,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Train a network in place.

    Args:
        model: the network.
        loader: sized iterable of batches of inputs, as for `search`, and labels, read once per
            epoch. `set_epoch` of it, its samplers and its data set, where there is one, is called
            before.
        config: settings.
        optimizer: of any kind and parameters; the rate of each of its groups is set in each step,
            to the schedule's times the group's entry `factor`. None makes that of the config, see
            `make_optimizer`.
        checkpoint: a file that is written after each epoch and, if it exists, resumed from.
        on_step: called after each step; an alternating optimizer can take its own step there.
        penalty: called in each step; its result, a scalar, is added to the loss.
        seed: seeds the global generators of torch, Python and NumPy, from which network and loader
            draw, such as dropout and a DataLoader's order; set in each epoch, so that a resumed
            training draws the same numbers. None leaves the generators as they are.
        progress: as for `search`.
        group: the ranks that train together, each on its part of each batch; the gradients are
            averaged, rank 0 writes the checkpoint, and its buffers are those of the result.

    Raises:
        FloatingPointError: if a loss is not finite; the message names the step, the layer and the
            last good checkpoint.
        TypeError: if images or labels have a dtype that the network or cross entropy does not take,
            the loader has no length, or the checkpoint cannot hold the network's or the optimizer's
            state.
        OSError: if the checkpoint cannot be written, before anything is trained.
        ValueError: if the checkpoint belongs to another training, the images do not fit the
            network, a label is none of its classes, the last batch of an epoch has one sample,
            over which a layer normalises, gradients are off or autocast is on around it, or a
            checkpoint is given and the network does not load its own state.
        RuntimeError: if another rank has failed before the first step, would begin at another
            epoch, or has another config or number of batches.
    """
    device = device_of(model)
    with together(group, device):
        if progress and leads(group):
            check_bar()
        steps = batch_count(loader)
        # Also after an os.chdir of the loader or a callback.
        checkpoint = None if checkpoint is None else Path(checkpoint).absolute()
        if checkpoint is not None and leads(group):
            check_writable(checkpoint, model)
            check_own_state(model)
        if optimizer is None:
            optimizer = make_optimizer(model.parameters(), config)
        lower = config.precision != "float32"
        first_epoch = 0
        if checkpoint is not None and checkpoint.exists():
            state = read_training_state(checkpoint)
            done = state.progress
            check_progress(checkpoint, done)
            if done["config"] != asdict(config):
                raise ValueError(
                    f"{checkpoint} was written with other training settings, {done.get('config')}; "
                    "train with the same, or delete it to start again"
                )
            check_epoch(checkpoint, done, config.epochs)
            put_training_state(state, model, optimizer)
            first_epoch = done["epoch"]
        if first_epoch < config.epochs:
            check_ambient(model)
            check_read_again(loader, once=config.epochs - first_epoch == 1)
            on_step = kept_by(checkpoint, model, optimizer, on_step)
    same = {"config": asdict(config), "epoch": first_epoch, "number of batches": steps}
    check_same(same, device, group)
    model.train()
    forward = model if group is None else DistributedDataParallel(model, process_group=group)
    forward = torch.compile(forward) if config.compile else forward

    def run_epoch(epoch: int, on_step: Callable[[TrainStep], None] | None) -> None:
        first = int(epoch == first_epoch)
        batches = epoch_batches(loader, epoch, device)
        batches = in_lockstep(batches, group, device, f"in epoch {epoch + 1}", steps=first)
        for step, (images, labels) in enumerate(batches):
            if first and step == 0:
                with together(group, device):
                    check_last_batch(model, loader, images)
            done = min(step / steps, 1)  # a length may be less than what comes
            rate = config.lr * rate_factor(config, epoch + done)
            for settings in optimizer.param_groups:
                settings["lr"] = rate * settings.get("factor", 1.0)
            autocast = torch.autocast(device.type, torch.bfloat16, lower)
            with explained_pass(model, images), autocast:
                outputs = run_on(forward, images)
            if lower:
                outputs = in_float32(outputs)
            with together(group, device) if first and step == 0 else nullcontext():
                loss = checked_loss(F.cross_entropy, outputs, labels, first=step == 0)
            is_finite = finite_soon(loss)
            optimizer.zero_grad()
            (loss if penalty is None else loss + penalty()).backward()
            if not is_finite():
                batch = images, labels
                error = no_finite_loss(model, batch, loss=loss, epoch=epoch, step=step)
                raise FloatingPointError(f"{error}; {last_state(checkpoint, epoch)}")
            optimizer.step()
            if on_step is not None:
                on_step(TrainStep(epoch, step, loss.detach(), outputs.detach(), labels, rate))

    show, epochs = progress and leads(group), config.epochs
    with shown("train", loader, on_step, show=show, epochs_of=lambda _: epochs) as (on_step, _):
        for epoch in range(first_epoch, epochs):
            with seeded(None if seed is None else 100_000 * seed + epoch, device):
                run_epoch(epoch, on_step)
            with together(group, device):
                check_parameters(model, epoch)
                if checkpoint is not None and leads(group):
                    done = {"config": asdict(config), "epoch": epoch + 1}
                    save_training_state(checkpoint, model, optimizer, done)
    if group is not None:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=dist.get_global_rank(group, 0), group=group)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[Any, Any]],
    group: dist.ProcessGroup | None = None,
    *,
    top: int = 1,
) -> float:
    """Return the fraction of a split, from 0 to 1, whose class is among the `top` likeliest.

    Of several ranks, all parts count together.

    Args:
        model: gives scores `(B, classes)`; it stays in evaluation mode.
        loader: gives images and class indices `(B,)`.
        group: the ranks, each of which tests its own part.
        top: how many of the likeliest classes count.

    Raises:
        FloatingPointError: if the images of the first batch are not finite.
        RuntimeError: if another rank has failed.
        TypeError: if images or labels have a dtype that the network or class indices do not have.
        ValueError: if the loader gives nothing, the images do not fit the network, it gives fewer
            than `top` scores, or a label is none of its classes.
    """
    device = device_of(model)
    with together(group, device):
        model.eval()
        counts = torch.zeros(3, dtype=torch.int64, device=device)
        classes = 0
        for step, batch in enumerate(loader):
            images, labels = labelled(batch, step, device)
            with explained_pass(model, images):
                outputs = run_on(model, images)
            if step == 0:
                check_test(outputs, images, labels, top)
                classes = outputs.shape[1]
            hits = outputs.topk(top).indices == labels[:, None]
            outside = (labels < 0) | (labels >= classes)
            samples = torch.tensor(len(labels), device=device)
            counts += torch.stack([hits.sum(), samples, (outside & (labels != IGNORED)).sum()])
    if group is not None:
        dist.all_reduce(counts, group=group)
    correct, samples, outside = counts.tolist()
    if outside:
        raise ValueError(
            f"the loader of the test gave {outside} label(s) that are none of the network's "
            f"classes, 0 to {classes - 1}; number the classes from 0, or build the network for more"
        )
    if not samples:
        raise ValueError("the loader of the test gave no sample; it must give at least one")
    return correct / samples


def labelled(batch: Any, step: int, device: torch.device) -> tuple[Any, Tensor]:
    """Return the inputs of a test's batch and its labels `(B,)`, integers as int64, on a device.

    Raises:
        TypeError: if the batch is not a pair, or its labels are not a tensor.
    """
    images, labels = as_pair(batch, f"batch {step + 1} of the test")
    return on_device(images, device), class_labels(labels, device)


def class_labels(labels: Any, device: torch.device) -> Tensor:
    """Return the labels of a test's batch `(B,)`, integers as int64, on a device.

    Raises:
        TypeError: if they are not a tensor.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(
            f"the loader of the test gave a {type(labels).__name__} as labels; accuracy is "
            "counted with class indices (B,), so give images and those"
        )
    labels = on_device(labels, device)
    return labels if labels.is_floating_point() else labels.long()


def check_test(outputs: Any, images: Any, labels: Tensor, top: int) -> None:
    """Raise for what `evaluate` would count as wrong answers of the network in silence."""
    check_targets(outputs, labels)
    if labels.dim() != 1 or outputs.dim() != 2:
        raise ValueError(
            f"the test has outputs of shape {tuple(outputs.shape)} and labels of shape "
            f"{tuple(labels.shape)}; accuracy is counted over scores (B, classes) and class "
            "indices (B,), so give those"
        )
    if not 1 <= top <= outputs.shape[1]:
        raise ValueError(
            f"top is {top}, and the network gives {outputs.shape[1]} scores; pass 1 to "
            f"{outputs.shape[1]}"
        )
    if isinstance(images, Tensor) and not images.isfinite().all():
        raise FloatingPointError(
            "the loader of the test gave images that are not finite, so check the data"
        )
