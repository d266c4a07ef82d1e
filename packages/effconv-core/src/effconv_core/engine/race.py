"""Short trainings of plans side by side: what a plan is worth, measured by training it.

The batches of a loader's epoch are divided: one in five is held out, and the others train. Where
there is a validation loader all of them train, and its batches are tested on. All networks of a
comparison are trained on the same batches in the same order, and what counts is their loss on what
is held out.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.distributed.consistency import average
from effconv_core.distributed.failures import in_lockstep
from effconv_core.engine.loader import END, MOST_READ, check_read_again, epoch_batches, read_before
from effconv_core.layers.batch_checks import checked_loss, explained_pass
from effconv_core.layers.class_scores import are_samples, hits
from effconv_core.layers.contract import for_comparison
from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import copied, in_float32, run_on
from effconv_core.layers.loader_parts import kept_orders, seed_orders
from effconv_core.plan import Size, apply_plan
from effconv_core.rng import kept_generators, seeded

PARTS = 5  # one of this many parts is held out
HELD_OUT = 24  # batches that are held out, at most
BETWEEN = 10**12 + 39  # the seeds of one batch and the next, further than those of epochs

MOST_NEEDED = PARTS * HELD_OUT  # batches of an epoch, beyond which more make no difference here

Sizes = Mapping[str, Size]


class Result(NamedTuple):
    """What a short training reached on the batches held out."""

    loss: float
    """Mean loss, infinite where it was not finite."""
    accuracy: float | None
    """From 0 to 1; None if the outputs are not scores `(B, classes)` to the criterion."""
    constant: float | None = None
    """Mean loss where each sample's output is the mean output of its batch, which is what a network
    that learned nothing about single samples can reach; None if it was not asked for, or outputs
    and targets are not tensors of the same several samples."""


@dataclass(frozen=True)
class Trials:
    """Everything that short trainings of plans have in common.

    Args:
        model: the network that is searched; not changed.
        config: of the search; its rate and weight decay of the CNN, precision and seed are used.
        loader: training batches.
        criterion: the task's loss of `(outputs, targets)`, a scalar.
        epoch_steps: number of batches of the loader's epoch, or at least `MOST_NEEDED`.
        epochs: number of epochs that the search has read.
        device: where the networks are trained.
        group: the ranks that train together, each on its part of each batch.
        validation: batches to test on; None holds out a part of the training batches.
        validation_steps: number of its batches.
    """

    model: nn.Module
    config: SearchConfig
    loader: Iterable[tuple[Any, Any]]
    criterion: Callable[[Any, Any], Tensor]
    epoch_steps: int
    epochs: int
    device: torch.device
    group: dist.ProcessGroup | None = None
    validation: Iterable[tuple[Any, Any]] | None = None
    validation_steps: int | None = None

    @property
    def tested(self) -> Iterable[tuple[Any, Any]]:
        """The loader of which some batches are held out."""
        return self.loader if self.validation is None else self.validation

    @property
    def tested_steps(self) -> int:
        """Number of batches of an epoch of `tested`, or at least `MOST_NEEDED`."""
        return self.epoch_steps if self.validation_steps is None else self.validation_steps

    def held_out(self, part: int, *, paired: bool) -> Sequence[int]:
        """Return the numbers of the batches of `tested` that are tested on, `HELD_OUT` at most.

        Args:
            part: 0 to `PARTS` - 1.
            paired: whether only this part of the validation batches is.
        """
        if self.validation_steps is None:
            return range(part, MOST_NEEDED, PARTS)
        known = spread(range(self.validation_steps), MOST_NEEDED)
        return known[part::PARTS] if paired else spread(known, HELD_OUT)

    def cost(self, plans: int, steps: int, *, paired: bool = False) -> int:
        """Return the training steps that `run` takes, a forward pass counted as a third of one."""
        passes = sum(n < self.tested_steps for n in self.held_out(0, paired=paired))
        return plans * (steps + -(-passes // 3))

    def run(
        self,
        plans: Sequence[Sizes],
        *,
        steps: int,
        seed: int,
        epoch: int,
        paired: bool = False,
    ) -> list[Result]:
        """Train the networks of some plans side by side, and test them on what is held out.

        The learning rate falls linearly to zero.

        Args:
            plans: layer name to size.
            steps: of each training.
            seed: of the initial kernels, and of the part that is held out.
            epoch: of the loader, counted from the search's last; the same one gives the same
                batches. Of the validation loader it is always the first after the search.
            paired: whether plans are compared several times, from other seeds. Each comparison then
                has another part of the validation batches, so that differences vary as they do
                from one set of data to another, and results have the loss of constant outputs.
        """
        networks = [self._network(sizes, seed) for sizes in plans]
        with kept_orders(self.loader, self.validation):
            self._train(networks, steps, seed, self.epochs + epoch)
            # In one order of the validation loader no two parts have a sample in common.
            tested = self.epochs + (epoch if self.validation is None else 0)
            return self._tested(networks, tested, seed % PARTS, paired)

    def some_batches(self, most: int) -> list[Any]:
        """Return at most `most` batches, of `validation` where there is one; each time the same."""
        chosen = range(most)
        if self.validation_steps is not None:
            chosen = spread(range(self.validation_steps), most)
        with kept_orders(self.tested):
            epoch = islice(self._epoch(self.tested, self.epochs), chosen[-1] + 1)
            return [batch for number, batch in enumerate(epoch) if number in chosen]

    def _train(self, networks: Sequence[nn.Module], steps: int, seed: int, epoch: int) -> None:
        optimizers = [
            torch.optim.AdamW(
                [p for p in network.parameters() if p.requires_grad],
                self.config.cnn_lr,
                weight_decay=self.config.weight_decay,
            )
            for network in networks
        ]
        for step, batch in enumerate(islice(self._training(epoch, seed % PARTS), steps)):
            for network, optimizer in zip(networks, optimizers, strict=True):
                for settings in optimizer.param_groups:
                    settings["lr"] = self.config.cnn_lr * (1 - step / steps)
                with seeded(1000 * seed + step, self.device):
                    loss, _ = self._pass(network, batch, first=step == 0)
                loss.backward()
                self._average_gradients(network)
                optimizer.step()
                optimizer.zero_grad()  # so that one network at a time has gradients

    def _network(self, sizes: Sizes, seed: int) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        network = apply_plan(self.model, sizes, generator=generator)
        network.to(self.device)
        network.train()
        if self.group is not None:  # the start of the first rank holds
            for tensor in (*network.parameters(), *network.buffers()):
                dist.broadcast(
                    tensor.data, src=dist.get_global_rank(self.group, 0), group=self.group
                )
        if any(_is_channels_last(parameter) for parameter in self.model.parameters()):
            network.to(memory_format=torch.channels_last)
        return network

    def _pass(self, network: nn.Module, batch: Any, *, first: bool) -> tuple[Tensor, Any]:
        """Return the loss and the outputs."""
        inputs, targets = batch
        lower = self.config.precision == "bfloat16"
        with (
            explained_pass(network, inputs),
            torch.autocast(self.device.type, torch.bfloat16, lower),
        ):
            outputs = run_on(network, copied(inputs))
        outputs = in_float32(outputs) if lower else outputs
        return checked_loss(self.criterion, outputs, targets, first=first), outputs

    def _measured(self, network: nn.Module, batch: Any, paired: bool) -> Tensor:
        """Return the values of a `Result` on one batch, NaN where unknown."""
        loss, outputs = self._pass(network, batch, first=False)
        constant = torch.full_like(loss, math.nan)
        if paired and are_samples(outputs, batch[1]):
            mean = outputs.mean(0, keepdim=True).expand_as(outputs).contiguous()
            # A criterion need not take what no network gives; then it is not known.
            with suppress(Exception):
                constant = checked_loss(self.criterion, mean, batch[1], first=False)
        hit = hits(self.criterion, outputs, batch[1], loss)
        return torch.stack([loss, hit, constant]).float()

    def _average_gradients(self, network: nn.Module) -> None:
        if self.group is None:
            return
        parameters = [p for p in network.parameters() if p.requires_grad]
        reached = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        # A layer that a pass left out has no gradient on this rank, and may have one on another.
        for parameter, share in zip(parameters, average(reached, self.group).tolist(), strict=True):
            if share and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if share:
                average(parameter.grad, self.group)

    def _training(self, epoch: int, part: int) -> Iterator[Any]:
        """Yield batches to train on, without an end: the same ones in the same order each time."""
        for _ in count():
            for number, batch in enumerate(self._epoch(self.loader, epoch)):
                if self.validation is not None or number % PARTS != part:
                    yield batch

    @torch.no_grad()
    def _tested(
        self, networks: Sequence[nn.Module], epoch: int, part: int, paired: bool
    ) -> list[Result]:
        for network in networks:
            for_comparison(network)
        held_out, rows = self.held_out(part, paired=paired), []
        for number, batch in enumerate(islice(self._epoch(self.tested, epoch), held_out[-1] + 1)):
            if number not in held_out:
                continue
            passes = []
            for network in networks:
                with seeded(part, self.device):  # what runs by chance is the same for all
                    passes.append(self._measured(network, batch, paired))
            rows.append(torch.stack(passes))
        means = average(torch.stack(rows).mean(0), self.group).tolist()
        return [
            Result(
                loss if math.isfinite(loss) else math.inf,
                None if math.isnan(hits) else hits,
                constant if math.isfinite(constant) else None,
            )
            for loss, hits, constant in means
        ]

    def _epoch(self, loader: Iterable[tuple[Any, Any]], epoch: int) -> Iterator[Any]:
        """Yield the batches of an epoch, the same ones whenever it is asked for."""
        seed = 100_000 * self.config.seed + epoch
        seed_orders(loader, seed)
        batches = epoch_batches(loader, epoch, self.device)
        batches = in_lockstep(batches, self.group, self.device, "in the comparison of plans")
        for number in count():
            # A loader draws its order with the first batch, and may draw changes of each.
            with seeded(seed + number * BETWEEN, self.device):
                batch = next(batches, END)
            if batch is END:
                break
            yield batch
        least = self.validation_steps or PARTS
        if self.tested is loader and number < least:
            raise ValueError(
                f"the {'' if self.validation is None else 'validation '}loader gave {number} "
                f"batch(es) in an epoch, and {self.tested_steps} in one before; let it give at "
                f"least {least} in each, on which plans are compared"
            )


def _is_channels_last(parameter: Tensor) -> bool:
    return (
        parameter.dim() == 4
        and parameter.is_contiguous(memory_format=torch.channels_last)
        and not parameter.is_contiguous()
    )


def spread(numbers: Sequence[int], most: int) -> Sequence[int]:
    """Return at most `most` of some numbers, evenly spaced."""
    count = min(len(numbers), most)
    return [numbers[i * len(numbers) // count] for i in range(count)]


def checked_steps(
    loader: Iterable[tuple[Any, Any]], device: torch.device, *, holds_out: bool
) -> int:
    """Return the number of batches of an epoch of a loader, `MOST_NEEDED` at most.

    Args:
        loader: of the training; no generator that it draws from is changed.
        device: of the network.
        holds_out: whether a part of its batches is held out.

    Raises:
        ValueError: if there are too few for that.
    """
    with kept_orders(loader), kept_generators(device):
        steps = sum(1 for _ in islice(epoch_batches(loader, 0, device), MOST_NEEDED))
    if steps < PARTS and holds_out:
        raise ValueError(
            f"the loader gives {steps} batches an epoch; at least {PARTS} are needed to hold "
            "one out, so pass a smaller batch size or more data"
        )
    return steps


def checked_validation(
    model: nn.Module,
    validation: Iterable[tuple[Any, Any]] | None,
    criterion: Callable[[Any, Any], Tensor],
) -> int | None:
    """Return the number of batches of a validation loader; None if there is none.

    A copy of the network is run on those that plans are compared on, so that what is wrong with
    them is known before a search.

    Args:
        model: the network; not changed.
        validation: its loader, of which at most the first thousand batches are used.
        criterion: the task's loss of `(outputs, targets)`.

    Raises:
        TypeError: if it is no loader that can be read again, or as `search` does.
        ValueError: if it gives fewer than five batches, or fewer when it is read again, most of its
            batches have a single label and not all the same, it or the network fails, or as
            `search` does.
        FloatingPointError: if a loss is not finite.
    """
    if validation is None:
        return None
    device = next(model.parameters()).device
    network, labels = copy_network(model), []
    network.train()  # which may return anything
    for_comparison(network)
    with read_before("the validation data"):
        check_read_again(validation)
        with kept_orders(validation), kept_generators(device), torch.no_grad():
            steps = sum(1 for _ in islice(epoch_batches(validation, 0, device), MOST_READ))
            known = spread(range(steps), MOST_NEEDED)
            again = islice(epoch_batches(validation, 0, device), known[-1] + 1)
            for number, (inputs, targets) in enumerate(again, 1):
                if number - 1 in known:
                    with explained_pass(network, inputs):
                        outputs = run_on(network, copied(inputs))
                    loss = checked_loss(criterion, outputs, targets, first=True).item()
                    if not math.isfinite(loss):
                        raise FloatingPointError(
                            f"the loss on batch {number} of the validation loader is {loss}, and "
                            "so no plan can be compared; check its inputs and targets"
                        )
                    labels.append(_label_of(targets))
    if steps < PARTS or number <= known[-1]:
        raise ValueError(
            f"the validation loader gives {steps} batch(es), and {number} when it is read again; "
            f"let it give as many each time, at least {PARTS}, in smaller batches, or pass none"
        )
    alone = [label for label in labels if label is not None]
    if 2 * len(alone) > len(labels) and len(set(alone)) > 1:
        raise ValueError(
            f"most batches of the validation loader have a single label, the first {alone[0]}, and "
            "batch normalisation compares plans by the statistics of a batch; shuffle the loader"
        )
    return steps


def _label_of(targets: Any) -> int | None:
    """Return the label of all samples of a batch, None if they have several or are few."""
    classes = isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point()
    values = targets.unique().tolist() if classes and len(targets) > 3 else []  # few may be alike
    return values[0] if len(values) == 1 else None
