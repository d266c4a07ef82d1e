"""A split held entirely in the memory of the device."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from effconv_data._checks import check_integer
from effconv_data._seeding import DIVISION, seeded_generator
from effconv_data.loading.batches import Augment, Batches
from effconv_data.loading.order import Order
from effconv_data.shards.pixel_statistics import SCALES, pixel_statistics
from effconv_data.shards.problems import Problem

__all__ = ["ResidentBatches"]


class ResidentBatches(Batches):
    """Batches of samples held on the device: shuffled, augmented and normalised there.

    Args:
        images: images `(N, C, H, W)` uint8, or sequences `(N, C, T)` int16; not copied if they are
            already on the device.
        labels: `(N,)` integers, indices into `classes`.
        classes: class names in label order.
        batch_size: samples in a batch of this rank.
        training: whether to shuffle and to drop a short last batch.
        mean: `(C,)` for normalisation, of each channel on the scale of `normalize`; None computes
            mean and std from `images` where they are normalised, so pass those of the training set
            to a test set.
        std: `(C,)`, as `mean`.
        augment: applied to each batch before normalisation; None does nothing.
        normalized: False yields the samples in their own type.
        seed: seed of order and augmentation, 0 or more.
        device: device of the images and batches.
        rank: index of the part of each global batch for this process, from 0.
        world_size: number of ranks.
        name: name of the set.
        shards: number of samples of each shard of the images: the order is then that of streaming
            them; None shuffles all images together.
        missing: for images that could not be read, index to problem: these are left out of their
            batches and reported.

    Raises:
        TypeError: if `images` is of another type, `labels` not integer, or a number not an integer.
        ValueError: if shapes disagree, a label is out of range, only one of `mean` and `std` is
            given, or there is no batch to give.

    Examples:
        >>> images = torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8)
        >>> labels = torch.arange(10) % 2
        >>> batches = ResidentBatches(images, labels, classes=("cat", "dog"), batch_size=4)
        >>> [tuple(x.shape) for x, y in batches]
        [(4, 3, 8, 8), (4, 3, 8, 8)]
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        classes: Sequence[str],
        batch_size: int,
        training: bool = True,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: Augment | None = None,
        normalized: bool = True,
        seed: int = 0,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world_size: int = 1,
        name: str = "tensors",
        shards: Sequence[int] | None = None,
        missing: Mapping[int, Problem] | None = None,
    ) -> None:
        _check_samples(images, labels, len(classes))
        check_integer("batch_size", batch_size, 1)
        check_integer("seed", seed, 0)
        check_integer("world_size", world_size, 1)
        if (mean is None) != (std is None):
            raise ValueError("only one of mean and std is given; pass both, or neither")
        if mean is None and normalized:
            mean, std = pixel_statistics(images)
        counts = (len(images),) if shards is None else tuple(shards)
        if sum(counts) != len(images):
            raise ValueError(
                f"the shards hold {sum(counts)} samples beside {len(images)} images; pass the "
                "number of samples of each shard"
            )
        super().__init__(
            Order(counts, batch_size * world_size, training, seed, whole=shards is None),
            name=name,
            classes=classes,
            image_shape=tuple(images.shape[1:]),
            mean=mean,
            std=std,
            augment=augment,
            normalized=normalized,
            device=device,
            rank=rank,
            world_size=world_size,
            on_error="skip",
        )
        self._images = images.to(device)
        self._labels = labels.to(device, torch.int64)
        self._missing = dict(missing or {})

    def viewed(self, view: Callable[[Tensor], Tensor]) -> "ResidentBatches":
        """Return these batches with a function of each, such as images read as sequences.

        Args:
            view: maps a batch as it is yielded to one of as many samples; `image_shape` is that of
                its output.
        """
        viewed = copy.copy(self)
        viewed._view = view
        first = self._images[:1]
        viewed.image_shape = tuple(view(first.float() if self._normalized else first).shape[1:])
        return viewed

    def divide(
        self, share: float, *, seed: int = 0, held_out: bool = False
    ) -> "tuple[ResidentBatches, ResidentBatches]":
        """Return the samples in two random parts, each with its own batches.

        All else is as in the whole, except the order: each part is shuffled by itself.

        Args:
            share: fraction of the samples in the second part, rounded to an integer number of them.
            seed: seed of the division, 0 or more. The order keeps the seed of the whole.
            held_out: whether the second part is held out for validation: all of it in each epoch,
                in its own order and not augmented.

        Raises:
            TypeError: if the seed is not an integer.
            ValueError: if the share or the seed is out of its range, or a part has no batch.

        Examples:
            >>> images = torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8)
            >>> labels = torch.arange(10) % 2
            >>> batches = ResidentBatches(images, labels, classes=("cat", "dog"), batch_size=2)
            >>> [part.samples for part in batches.divide(0.2)]
            [8, 2]
        """
        if not 0 < share < 1:
            raise ValueError(f"share is {share}; it must be above 0 and below 1, so change it")
        check_integer("seed", seed, 0)
        there = [n for n in range(self.samples) if n not in self._missing]
        order = torch.randperm(len(there), generator=seeded_generator(seed, DIVISION))
        second = round(share * len(there))
        whole = torch.tensor(there)[order]
        parts = whole[: len(there) - second], whole[len(there) - second :]
        first, rest = (part.sort().values.to(self._device) for part in parts)
        return self._part_of(first), self._part_of(rest, held_out=held_out)

    def _part_of(self, chosen: Tensor, *, held_out: bool = False) -> "ResidentBatches":
        if not len(chosen):
            raise ValueError(
                f"a part of the {self.samples} samples is empty; change share or take more samples"
            )
        part = ResidentBatches(
            self._images[chosen],
            self._labels[chosen],
            classes=self.classes,
            batch_size=self._order.global_batch // self._world_size,
            training=self._order.training and not held_out,
            mean=self.mean,
            std=self.std,
            augment=None if held_out else self._augment,
            normalized=self._normalized,
            seed=self._order.seed,
            device=self._device,
            rank=self._rank,
            world_size=self._world_size,
            name=self.name,
        )
        return part if self._view is None else part.viewed(self._view)

    def _raw(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor, list[Problem]]]:
        batches = self._order.batch_indices(epoch, first, self._rank, self._world_size)
        there, problems = zip(*map(self._part, batches), strict=True)
        # All at once, because a copy to a GPU for each batch would wait for it each time.
        indices = torch.from_numpy(np.concatenate(there)).to(self._device)
        for chosen, missing in zip(indices.split(list(map(len, there))), problems, strict=True):
            yield self._images.index_select(0, chosen), self._labels[chosen], missing

    def _part(self, chosen: np.ndarray) -> tuple[np.ndarray, list[Problem]]:
        """Split the samples of a batch `(B,)` into available ones and problems."""
        if not self._missing:
            return chosen, []
        there = [index not in self._missing for index in chosen.tolist()]
        return chosen[there], [self._missing[i] for i in chosen.tolist() if i in self._missing]


def _check_samples(images: Tensor, labels: Tensor, num_classes: int) -> None:
    if images.dtype not in SCALES:
        raise TypeError(
            f"images are {images.dtype}; pass 8-bit images, torch.uint8, or 16-bit sequences, "
            "torch.int16"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels are {labels.dtype}; pass integers, such as torch.int64")
    shape = "(N, C, H, W)" if images.dtype == torch.uint8 else "sequences (N, C, T)"
    if images.ndim != shape.count(",") + 1 or not images.numel():
        raise ValueError(
            f"images have shape {tuple(images.shape)}; pass {shape} with no empty dimension"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} beside {len(images)} images; pass one label "
            "for each image"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()} but there are {num_classes} "
            f"classes; pass labels from 0 to {num_classes - 1}, or all class names"
        )
