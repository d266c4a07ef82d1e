"""`Batches`: the interface shared by all sources of images."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from effconv_data._checks import check_integer
from effconv_data._seeding import AUGMENTATION, seeded_generator
from effconv_data.loading.augment import normalize
from effconv_data.loading.order import Order
from effconv_data.shards.problems import Problem, ShardError

__all__ = ["Augment", "Batches"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Maps a uint8 batch `(B, C, H, W)` and a CPU generator to a batch of that shape."""

logger = logging.getLogger("effconv_data")


class Batches(ABC):
    """Normalised batches of a split; `ResidentBatches` and `StreamedBatches` implement it.

    Each `iter()` is one epoch of `(images, labels)`: images `(B, C, H, W)` float32 in channels-last
    memory format, or sequences `(B, C, T)` float32, labels `(B,)` int64, both on the device. In
    training the order is shuffled and a short last batch is dropped; otherwise all samples come in
    their own order, and a short last batch is divided among the ranks, of which some may get none.

    Skipped samples make their batches smaller, in evaluation possibly empty.

    Order and augmentation are pure functions of seed, epoch, batch and rank, the same on all
    devices, so that an epoch can be repeated exactly. The epoch advances with its last batch;
    `set_epoch` sets it. At a fixed global batch, `batch_size * world_size`, the ranks' batches
    concatenated are the same for any number of ranks, before augmentation.

    Attributes:
        name: name of the set.
        classes: class names in label order.
        num_classes: number of classes.
        image_shape: `(C, H, W)`, or `(C, T)` of sequences.
        samples: number of samples N of all ranks, dropped ones included.
        mean: of each channel on the scale 0..1 (-1..1 of 16-bit sequences), as used for
            normalisation; None where samples are not normalised and none was given.
        std: of each channel, as `mean`.
        epoch: the epoch of the next `iter()`.
        problems: samples skipped in the latest epoch, on this rank.
    """

    def __init__(
        self,
        order: Order,
        *,
        name: str,
        classes: Sequence[str],
        image_shape: tuple[int, ...],
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        augment: Augment | None,
        normalized: bool,
        device: str | torch.device,
        rank: int,
        world_size: int,
        on_error: str,
    ) -> None:
        check_integer("world_size", world_size, 1)
        check_integer("rank", rank, 0)
        if rank >= world_size:
            raise ValueError(
                f"rank is {rank} and world_size {world_size}; ranks run from 0 to world_size - 1"
            )
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; pass 'raise' or 'skip'")
        if not order.batches:
            ranks = f" on each of {world_size} ranks" if world_size > 1 else ""
            raise ValueError(
                f"batch_size is {order.global_batch // world_size}{ranks} but there are "
                f"{order.samples} samples, and training drops a short batch; lower batch_size or "
                "take more samples"
            )
        C = image_shape[0]
        if (mean is None) != (std is None):
            raise ValueError("only one of mean and std is given; pass both, or neither")
        if mean is None or std is None:
            if normalized:
                raise ValueError(
                    "mean and std are None, and images are to be normalised; pass both, or "
                    "normalized=False"
                )
        elif len(mean) != C or len(std) != C:
            raise ValueError(
                f"mean has {len(mean)} values and std {len(std)}; images of {C} channels need {C} "
                "of each"
            )
        elif not all(value > 0 for value in std):
            raise ValueError(f"std is {tuple(std)}; every value must be above 0, so change it")
        self.name = name
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        self.image_shape = tuple(image_shape)
        self.samples = order.samples
        self.mean, self.std = (
            None if values is None else tuple(map(float, values)) for values in (mean, std)
        )
        self.epoch = 0
        self.problems: list[Problem] = []
        self._order = order
        self._rank, self._world_size = rank, world_size
        self._augment = augment
        self._normalized = normalized
        self._on_error = on_error
        self._device = torch.device(device)
        self._view: Callable[[Tensor], Tensor] | None = None
        self._resume_at = 0
        self._given = 0
        self._skipped_before = 0
        # Copied to the device once, so that no batch waits for it.
        self._mean, self._std = (
            None if values is None else torch.tensor(values, device=device)
            for values in (self.mean, self.std)
        )

    @abstractmethod
    def _raw(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, list[Problem]]]:
        """Yield uint8 images and int64 labels, on the device, and problems, from batch `first`."""

    def __len__(self) -> int:
        return self._order.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._pass(self.epoch, self._resume_at)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next `iter()`; initially 0.

        Raises:
            TypeError: if `epoch` is not an integer.
            ValueError: if `epoch` is negative.
        """
        check_integer("epoch", epoch, 0)
        if epoch != self.epoch:
            self.epoch, self._resume_at, self._skipped_before = epoch, 0, 0
        # Loaded data of this epoch is kept, an unfinished pass is not.
        self._given = self._resume_at

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that was yielded, as plain numbers.

        Batches that workers have prefetched do not count.
        """
        skipped = self._skipped_before + (len(self.problems) if self._given else 0)
        place = {"epoch": self.epoch, "batch": self._given, "skipped": skipped}
        return {**place, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume the next `iter()` at the following batch.

        The numbers of workers, and, at the same global batch, of ranks, may have changed.

        Raises:
            ValueError: if the state belongs to batches in another order, or is not such a state.
        """
        if not isinstance(state, dict) or {"epoch", "batch"} - state.keys():
            raise ValueError(f"the state is {state!r}; pass what state_dict() gave")
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise ValueError(
                    f"the state is of batches whose {key} is {state.get(key)}, not {value}; load "
                    "the data as it was then, or start a new epoch with set_epoch"
                )
        check_integer("epoch of the state", state["epoch"], 0)
        check_integer("batch of the state", state["batch"], 0)
        check_integer("skipped of the state", state.get("skipped", 0), 0)
        if state["batch"] >= len(self):
            raise ValueError(
                f"the state is at batch {state['batch']}; an epoch has {len(self)}, so pass what "
                "state_dict() gave"
            )
        self.epoch, self.problems = state["epoch"], []
        self._resume_at = self._given = state["batch"]
        self._skipped_before = state.get("skipped", 0)

    def _identity(self) -> dict[str, Any]:
        order = self._order
        return {
            "seed": order.seed,
            "samples": order.samples,
            "order": order.fingerprint,
            "global_batch": order.global_batch,
            "training": order.training,
        }

    def _pass(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        # Not in iter(), so that an unused iterator has no effect.
        self.problems, self._given, self._resume_at = [], first, 0
        if not first:
            self._skipped_before = 0
        last, given = len(self) - 1, first > 0
        for batch, (images, labels, problems) in enumerate(self._raw(epoch, first), first):
            if problems and self._on_error == "raise":
                raise ShardError(problems[0])
            self.problems += problems
            given = given or len(images) > 0
            if batch == last and problems and not given:
                sentence = f"no sample of {self.name} can be read, the first because "
                raise ShardError(problems[0]._replace(sentence=sentence + problems[0].sentence))
            if self._augment is not None and len(images):
                # A stream for each batch: batch b can be drawn without those before it.
                stream = (AUGMENTATION, epoch, batch, self._rank)
                images = self._augment(images, seeded_generator(self._order.seed, *stream))
            if self._normalized:
                images = normalize(images, self._mean, self._std)
            if self._view is not None:
                images = self._view(images)
            skipped = self._skipped_before + len(self.problems)
            if batch == last and skipped:
                logger.warning(
                    "epoch %d of %s: %d samples were skipped, such as: %s",
                    epoch,
                    self.name,
                    skipped,
                    self.problems[0].sentence if self.problems else "those before it was resumed",
                )
            # Before the batch is yielded: a state taken while it is in use is after it.
            if batch == last:
                self.epoch, self._given, self._skipped_before = epoch + 1, 0, 0
            else:
                self.epoch, self._given = epoch, batch + 1
            yield images, labels
