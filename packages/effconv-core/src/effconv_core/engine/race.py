"""Short trainings of plans side by side: what a plan is worth, measured by training it.

The batches of a loader's epoch are divided: one in five is held out, and the others train. All
networks of a comparison are trained on the same batches in the same order, and what counts is their
loss on those held out.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.distributed.consistency import average
from effconv_core.engine.loader import epoch_batches
from effconv_core.layers.batch_checks import checked_loss, explained_pass
from effconv_core.layers.contract import for_comparison
from effconv_core.layers.inputs import copied, in_float32, run_on
from effconv_core.plan import Size, apply_plan
from effconv_core.rng import seeded

PARTS = 5  # one of this many parts is held out
HELD_OUT = 24  # batches that are held out, at most

MOST_NEEDED = PARTS * HELD_OUT  # batches of an epoch, beyond which more make no difference here

Sizes = Mapping[str, Size]


class Result(NamedTuple):
    """What a short training reached on the batches held out."""

    loss: float
    """Mean loss, infinite where it was not finite."""
    accuracy: float | None
    """From 0 to 1; None if the outputs are not scores `(B, classes)`."""
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
    """

    model: nn.Module
    config: SearchConfig
    loader: Iterable[tuple[Any, Any]]
    criterion: Callable[[Any, Any], Tensor]
    epoch_steps: int
    epochs: int
    device: torch.device
    group: dist.ProcessGroup | None = None

    def cost(self, plans: int, steps: int) -> int:
        """Return the training steps that `run` takes, a forward pass counted as a third of one."""
        held_out = min(HELD_OUT, -(-self.epoch_steps // PARTS))
        return plans * (steps + -(-held_out // 3))

    def run(
        self,
        plans: Sequence[Sizes],
        *,
        steps: int,
        seed: int,
        epoch: int,
        constants: bool = False,
    ) -> list[Result]:
        """Train the networks of some plans side by side, and test them on what is held out.

        The learning rate falls linearly to zero.

        Args:
            plans: layer name to size.
            steps: of each training.
            seed: of the initial kernels, and of the part that is held out.
            epoch: of the loader, counted from the search's last; the same one gives the same
                batches.
            constants: whether results have the loss of constant outputs.
        """
        networks = [self._network(sizes, seed) for sizes in plans]
        with _kept(getattr(self.loader, "generator", None)):
            self._train(networks, steps, seed, self.epochs + epoch)
            return self._tested(networks, self.epochs + epoch, seed % PARTS, constants)

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

    def _measured(self, network: nn.Module, batch: Any, constants: bool) -> Tensor:
        """Return the values of a `Result` on one batch, NaN where unknown."""
        loss, outputs = self._pass(network, batch, first=False)
        constant = torch.full_like(loss, math.nan)
        if constants and _are_samples(outputs, batch[1]):
            mean = outputs.mean(0, keepdim=True).expand_as(outputs).contiguous()
            # A criterion need not take what no network gives; then it is not known.
            with suppress(Exception):
                constant = checked_loss(self.criterion, mean, batch[1], first=False)
        return torch.stack([loss, _hits(outputs, batch[1], loss), constant]).float()

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
            for number, batch in enumerate(self._epoch(epoch)):
                if number % PARTS != part:
                    yield batch

    @torch.no_grad()
    def _tested(
        self, networks: Sequence[nn.Module], epoch: int, part: int, constants: bool
    ) -> list[Result]:
        for network in networks:
            for_comparison(network)
        batches = enumerate(self._epoch(epoch))
        held_out = (batch for number, batch in batches if number % PARTS == part)
        rows = []
        for batch in islice(held_out, HELD_OUT):
            passes = []
            for network in networks:
                with seeded(part, self.device):  # what runs by chance is the same for all
                    passes.append(self._measured(network, batch, constants))
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

    def _epoch(self, epoch: int) -> Iterator[Any]:
        """Yield the batches of an epoch, the same ones whenever it is asked for."""
        seed, own = 100_000 * self.config.seed + epoch, getattr(self.loader, "generator", None)
        if isinstance(own, torch.Generator):
            own.manual_seed(seed)
        with seeded(seed, self.device):
            batches = epoch_batches(self.loader, epoch, self.device)
            first = next(batches)  # by now the loader has drawn its order
        number = 0
        for batch in chain([first], batches):
            number += 1
            yield batch
        if number < PARTS:
            raise ValueError(
                f"the loader gave {number} batch(es) in an epoch, and {self.epoch_steps} in one "
                f"before; let it give at least {PARTS} in each, of which one is held out"
            )


@contextmanager
def _kept(generator: Any) -> Iterator[None]:
    """Put a loader's generator, if it has one, back into its state at the end of the context."""
    if not isinstance(generator, torch.Generator):
        yield
        return
    state = generator.get_state()
    try:
        yield
    finally:
        generator.set_state(state)


def _are_samples(outputs: Any, targets: Any) -> bool:
    """Return whether outputs and targets are tensors of the same several samples."""
    tensors = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    if not tensors or not outputs.dim() or not targets.dim() or not outputs.is_floating_point():
        return False
    return len(outputs) == len(targets) > 1


def _hits(outputs: Any, targets: Any, loss: Tensor) -> Tensor:
    scores = isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1
    classes = isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point()
    # A criterion of its own may take complex outputs, or one target for several of them.
    if not (scores and classes) or outputs.is_complex() or len(outputs) != len(targets):
        return torch.full_like(loss.detach(), math.nan)
    return (outputs.detach().argmax(1) == targets).to(loss.dtype).mean()


def _is_channels_last(parameter: Tensor) -> bool:
    return (
        parameter.dim() == 4
        and parameter.is_contiguous(memory_format=torch.channels_last)
        and not parameter.is_contiguous()
    )
