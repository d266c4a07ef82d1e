"""Batches of a split that lies whole in the memory of the device."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from effconv_data._checks import check_integer
from effconv_data._seeding import AUGMENTATION, ORDER, seeded_generator
from effconv_data.augment import horizontal_flip, normalize, pad_crop
from effconv_data.shards import read_split

__all__ = ["Augment", "Batches", "load"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Takes a uint8 batch `(B, C, H, W)` and a generator on the CPU; gives a batch of that shape."""


class Recipe(NamedTuple):
    """What is usual for a known set."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment | None


def _pad_crop_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    return horizontal_flip(pad_crop(images, 4, generator), generator)


# Mean and standard deviation of the pixels of each official train split, as commonly published.
RECIPES = {
    "cifar10": Recipe((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), _pad_crop_flip),
    "mnist": Recipe((0.1307,), (0.3081,), None),
}


class Batches:
    """Normalised batches of a split that lies as 8-bit images on the device.

    Each `iter()` is one epoch of `(images, labels)`: images `(B, C, H, W)` float32 in channels-last
    memory format, labels `(B,)` int64, both on the device. In training the order is shuffled and
    the last batch is dropped where it is short; otherwise all samples come in their own order.

    Order and augmentation are pure functions of seed, epoch and batch, the same on every device,
    so that an epoch can be repeated exactly. The epoch advances by itself after every complete
    pass; `set_epoch` sets it.

    Args:
        images: `(N, C, H, W)` uint8; where they are on the device already they are not copied.
        labels: `(N,)` integers, indices into `classes`.
        classes: class names in label order.
        batch_size: samples in a batch.
        training: whether to shuffle and to drop a short last batch.
        mean: `(C,)` for normalisation, of each channel on the scale 0..1; None computes mean and
            std from `images`, so hand those of the training set to a test set.
        std: `(C,)`, as `mean`.
        augment: what is done to each uint8 batch before normalisation; None does nothing.
        seed: 0 or more; of order and augmentation.
        device: where the images are kept and the batches are given.
        name: what the set is called.

    Attributes:
        name: what the set is called.
        classes: class names in label order.
        num_classes: number of classes.
        image_shape: `(C, H, W)`.
        samples: number of samples N, a dropped last batch included.
        mean: of each channel, as used for normalisation.
        std: of each channel, as used for normalisation.
        epoch: the epoch that the next `iter()` gives.

    Raises:
        TypeError: if `images` is not uint8, `labels` is not integer, or a number is no integer.
        ValueError: if shapes disagree, a label is out of range, only one of `mean` and `std` is
            given, or there is no batch to give.

    Example:
        >>> images = torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8)
        >>> batches = Batches(images, torch.arange(10) % 2, classes=("cat", "dog"), batch_size=4)
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
        seed: int = 0,
        device: str | torch.device = "cpu",
        name: str = "tensors",
    ) -> None:
        _check_samples(images, labels, len(classes))
        check_integer("batch_size", batch_size, 1)
        check_integer("seed", seed, 0)
        if training and len(images) < batch_size:
            raise ValueError(
                f"batch_size is {batch_size} but there are {len(images)} samples, and training "
                "drops a short batch; lower batch_size or take more samples"
            )
        if (mean is None) != (std is None):
            raise ValueError("only one of mean and std is given; pass both, or neither")
        if mean is None or std is None:
            mean, std = pixel_statistics(images)
        C = images.shape[1]
        if len(mean) != C or len(std) != C:
            raise ValueError(
                f"mean has {len(mean)} values and std {len(std)}; images of {C} channels need {C} "
                "of each"
            )
        if not all(value > 0 for value in std):
            raise ValueError(f"std is {tuple(std)}; every value must be above 0, so change it")

        self.name = name
        self.classes = tuple(classes)
        self.num_classes = len(self.classes)
        self.image_shape = tuple(images.shape[1:])
        self.samples = len(images)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.epoch = 0
        self._batch_size = batch_size
        self._training = training
        self._augment = augment
        self._seed = seed
        self._images = images.to(device)
        self._labels = labels.to(device, torch.int64)
        # On the device once, so that no batch waits for a copy.
        self._mean, self._std = (torch.tensor(x, device=device) for x in (self.mean, self.std))

    def __len__(self) -> int:
        if self._training:
            return self.samples // self._batch_size
        return -(-self.samples // self._batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._pass(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next `iter()` gives; it is 0 at first.

        Raises:
            TypeError: if `epoch` is not an integer.
            ValueError: if `epoch` is negative.
        """
        check_integer("epoch", epoch, 0)
        self.epoch = epoch

    def _pass(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order(epoch)
        for batch in range(len(self)):
            chosen = order[batch * self._batch_size : (batch + 1) * self._batch_size]
            images, labels = self._images[chosen], self._labels[chosen]
            if self._augment is not None:
                # A stream for each batch: batch b can be had without drawing those before it.
                generator = seeded_generator(self._seed, AUGMENTATION, epoch, batch)
                images = self._augment(images, generator)
            yield normalize(images, self._mean, self._std), labels
        self.epoch = epoch + 1

    def _order(self, epoch: int) -> Tensor:
        """Give the indices `(N,)` of the samples in the order of an epoch, on the device."""
        if not self._training:
            return torch.arange(self.samples, device=self._images.device)
        generator = seeded_generator(self._seed, ORDER, epoch)
        return torch.randperm(self.samples, generator=generator).to(self._images.device)


def load(
    name: str,
    *,
    split: str = "train",
    batch_size: int,
    root: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    augment: Augment | None = None,
    limit: int | None = None,
) -> Batches:
    """Load a split of a set of shards and give its batches.

    The split `"train"` is shuffled and drops a short last batch; every other split comes whole and
    in order. Known sets, `"cifar10"` and `"mnist"`, are normalised by their published statistics,
    and CIFAR-10's train split is padded by 4, cropped and flipped. Other sets are normalised by
    the statistics of their whole train split, which is therefore read with any split.

    Args:
        name: the set's folder below `root`.
        split: a split that the set's index names.
        batch_size: samples in a batch.
        root: the folder of all sets; None takes the environment variable EFFCONV_DATA.
        device: where the images are kept and the batches are given.
        seed: of order and augmentation.
        augment: what is done to each uint8 batch, instead of the known set's own augmentation;
            `lambda images, generator: images` does nothing. None leaves the set's own in training.
        limit: take only the first samples of the split, at most this many; None takes all.

    Returns:
        The split's batches.

    Raises:
        FileNotFoundError: if there is no such set, or a shard of it is missing.
        TypeError: if a number is not an integer.
        ValueError: if neither `root` nor EFFCONV_DATA is given, or for what `read_split` and
            `Batches` raise it.
    """
    root = root if root is not None else os.environ.get("EFFCONV_DATA")
    if not root:
        raise ValueError(
            f"no folder is given to find the set {name!r} in; pass root or set the environment "
            "variable EFFCONV_DATA"
        )
    # Before minutes of reading, not after.
    check_integer("batch_size", batch_size, 1)
    check_integer("seed", seed, 0)
    folder = Path(root) / name
    images, labels, classes = read_split(folder, split, limit=limit)
    training = split == "train"
    if name in RECIPES:
        mean, std, usual = RECIPES[name]
        augment = usual if augment is None and training else augment
    else:
        whole = training and limit is None
        mean, std = pixel_statistics(images if whole else read_split(folder, "train").images)
    return Batches(
        images,
        labels,
        classes=classes,
        batch_size=batch_size,
        training=training,
        mean=mean,
        std=std,
        augment=augment,
        seed=seed,
        device=device,
        name=name,
    )


def pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give the mean and standard deviation of each channel on the scale 0..1.

    A constant channel is given the standard deviation 1, because it is to be divided by.

    Args:
        images: `(N, C, H, W)` uint8.
    """
    # Counts of the 256 values are exact, where a float32 sum over a whole set is not.
    counts = torch.stack([torch.bincount(c.flatten(), minlength=256) for c in images.unbind(1)])
    weights = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64, device=images.device) / 255
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


def _check_samples(images: Tensor, labels: Tensor, num_classes: int) -> None:
    if images.dtype != torch.uint8:
        raise TypeError(f"images are {images.dtype}; pass 8-bit images, torch.uint8")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels are {labels.dtype}; pass integers, such as torch.int64")
    if images.ndim != 4 or not images.numel():
        raise ValueError(
            f"images have shape {tuple(images.shape)}; pass (N, C, H, W) with no empty dimension"
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
