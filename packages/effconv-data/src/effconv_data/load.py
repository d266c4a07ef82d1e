"""`load`: the batches of a split, from memory if it fits, else from its shards."""

import glob
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from webdataset.shardlists import expand_urls

from effconv_data._checks import check_integer
from effconv_data.archived_sequences import ARCHIVED
from effconv_data.io.addresses import check_address, is_remote
from effconv_data.loading.augment import horizontal_flip, pad_crop
from effconv_data.loading.batches import Augment, Batches
from effconv_data.loading.free_memory import available_memory
from effconv_data.loading.resident import ResidentBatches
from effconv_data.loading.stream import StreamedBatches, first_counts, usual_workers
from effconv_data.sequences import VIEWS
from effconv_data.shards.index import Index, read_index
from effconv_data.shards.index_shards import scan_shards
from effconv_data.shards.pixel_statistics import pixel_statistics
from effconv_data.split import decode_shards, first_shape, shards_of, split_statistics

__all__ = ["load"]


SHARD_ENDS = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz"),
    *(".tar.zst", ".tzst"),
)


class Usual(NamedTuple):
    """Usual settings of a known set."""

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    padding: int


# Mean and standard deviation of the pixels of each official train split, as commonly published;
# None if preparation writes them into the index.
KNOWN = {
    "cifar10": Usual((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 4),
    "mnist": Usual((0.1307,), (0.3081,), 0),
    "stl10": Usual(None, None, 12),
    "imagenet16": Usual(None, None, 2),
    "imagenet32": Usual(None, None, 4),
    "imagenet64": Usual(None, None, 8),
}


def load(
    name: str | Path | Sequence[str],
    *,
    split: str = "train",
    batch_size: int,
    root: str | Path | None = None,
    device: str | torch.device = "cpu",
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    resident: bool | None = None,
    workers: int | None = None,
    on_error: str = "raise",
    augment: Augment | None = None,
    normalized: bool = True,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    limit: int | None = None,
    allow_commands: bool = False,
) -> Batches:
    """Load a split of a set of shards; return its batches.

    The split `"train"` is shuffled and drops a short last batch; all other splits come whole and in
    order. Known sets have their usual augmentation in training: `"cifar10"`, `"stl10"` and
    `"imagenet32"` are padded by an eighth, cropped and flipped, `"mnist"` is not augmented.

    Args:
        name: a set of sequences, in memory and not augmented: `"smnist"` (sequential MNIST, 784
            steps), `"pmnist"` (in a fixed random order), `"smnist196"` and `"pmnist196"` (of images
            pooled to 14x14), `"scifar10"` (1024 steps), `"npcifar10"` (rows, then noise to 1000
            steps), of the sets `mnist` and `cifar10` below `root`; or `"spoken-digits"` (4096
            steps at 8 kHz, of the folder `fsdd`), `"speech-commands"` (16000 steps, its own splits
            `train`, `val` and `test`) and `"character-trajectories"` (182 steps). Or a set's folder
            below `root`, or its absolute path or `http(s)://` address; or shards without an index:
            a path or http(s) address ending in .tar, .tar.gz, .tgz or in .tar packed by bzip2, xz
            or zstd (.bz2, .xz, .zst), a pattern such as `"data/train-{000..099}.tar"` or
            `"data/*.tar"`, or a list of these. Shards without an index are read once for their
            number of samples.
        split: a split that the set's index names; for shards without an index, the name they get.
        batch_size: samples in a batch of this rank.
        root: the folder of all sets; None takes the environment variable EFFCONV_DATA.
        device: device of the batches.
        seed: seed of order and augmentation.
        rank: index of the part of each global batch for this process, from 0.
        world_size: number of ranks.
        resident: True decodes the split once into the device's memory, False reads the shards each
            epoch; None is True if the split takes at most half of the available memory. Batches are
            the same either way.
        workers: processes that read shards, see `StreamedBatches`.
        on_error: `"raise"` stops at an unusable sample; `"skip"` leaves it out of its batch and of
            the computed mean and std, keeps it in `problems` and logs their number with each
            epoch.
        augment: applied to each uint8 batch, instead of the known set's own augmentation;
            `lambda images, generator: images` does nothing. None uses the set's own in training.
        normalized: False yields uint8 images.
        mean: `(C,)` for normalisation, of each channel on the scale 0..1; None takes the index's,
            else a known set's published ones, else, where `normalized` is set, computes those of
            the whole train split.
        std: `(C,)`, as `mean`.
        limit: take only the first samples of the split, at most this many; None takes all.
        allow_commands: whether a name of shards may run a program: `"pipe:COMMAND"` runs a shell
            command, and for `s3:`, `gs:`, `sftp:` and others webdataset runs aws, gsutil, curl and
            so on. Set it only where the name is your own.

    Returns:
        The split's batches.

    Raises:
        ConnectionError: if a server does not give the index.
        FileNotFoundError: if there is no such set, or a shard of it is missing.
        TypeError: if a number is not an integer.
        ValueError: if neither `root` nor EFFCONV_DATA is given, the set's index or a shard is
            malformed, there is no such split, a number is out of its range, an address is neither
            a file nor http(s) and `allow_commands` is not set, or the memory does not suffice.
    """
    # Before minutes of reading, not after.
    check_integer("batch_size", batch_size, 1)
    check_integer("seed", seed, 0)
    check_integer("world_size", world_size, 1)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}; pass 'raise' or 'skip'")
    if (mean is None) != (std is None):
        raise ValueError("only one of mean and std is given; pass both, or neither")

    skip = on_error == "skip"
    sequences = name if isinstance(name, str) and name in (*ARCHIVED, *VIEWS) else None
    if sequences and (resident is False or not normalized):
        raise ValueError(
            f"{sequences} is asked for with resident={resident} and normalized={normalized}; "
            "sequences are held in memory and normalised, so leave both out"
        )
    if sequences in ARCHIVED:
        return _archived(
            sequences,
            _root(sequences, root),
            split,
            limit,
            mean,
            std,
            batch_size=batch_size,
            augment=augment,
            seed=seed,
            device=device,
            rank=rank,
            world_size=world_size,
        )
    view = None
    if sequences:
        name, view = VIEWS[sequences]
        augment = augment or _unchanged
    index = _find(name, split, root, skip=skip, allow_commands=allow_commands)
    shards = shards_of(index, split, check=not skip)
    counts = first_counts(shards, limit)
    shape = first_shape(index, shards)
    training, usual = split == "train", KNOWN.get(index.name)
    if augment is None and training and usual is not None and usual.padding:
        augment = partial(_pad_crop_flip, usual.padding)
    if mean is None or std is None:
        mean, std = _statistics(index, usual, shape, skip=skip, compute=normalized)
    common = {
        "classes": index.classes,
        "batch_size": batch_size,
        "training": training,
        "mean": mean,
        "std": std,
        "augment": augment,
        "normalized": normalized,
        "seed": seed,
        "device": device,
        "rank": rank,
        "world_size": world_size,
        "name": index.name,
    }
    if sequences:
        common["name"], resident = sequences, True
    if resident is None:
        C, H, W = shape
        # On the CPU too, where the images are decoded before they are copied to a GPU.
        available = min(available_memory(device), available_memory("cpu"))
        resident = sum(counts) * C * H * W <= available // 2
    if not resident:
        return StreamedBatches(
            shards,
            image_shape=shape,
            limit=limit,
            workers=usual_workers() if workers is None else workers,
            on_error=on_error,
            **common,
        )
    images, labels, missing = decode_shards(shards, counts, shape, len(index.classes), skip=skip)
    batches = ResidentBatches(images, labels, shards=counts, missing=missing, **common)
    return batches if view is None else batches.viewed(view)


def _unchanged(images: Tensor, _: torch.Generator) -> Tensor:
    return images


def _archived(
    name: str,
    root: str,
    split: str,
    limit: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    **common: Any,
) -> ResidentBatches:
    if limit is not None:
        check_integer("limit", limit, 1)
    samples, labels, classes = ARCHIVED[name](root, split)
    if mean is None:
        train = samples if split == "train" else ARCHIVED[name](root, "train").samples
        mean, std = pixel_statistics(train)
    return ResidentBatches(
        samples[:limit],
        labels[:limit],
        classes=classes,
        training=split == "train",
        mean=mean,
        std=std,
        name=name,
        **common,
    )


def _root(place: str, root: str | Path | None) -> str:
    root = root if root is not None else os.environ.get("EFFCONV_DATA")
    if not root:
        raise ValueError(
            f"no folder is given to find the set {place!r} in; pass root or set the "
            "environment variable EFFCONV_DATA"
        )
    return str(root)


def _pad_crop_flip(padding: int, images: Tensor, generator: torch.Generator) -> Tensor:
    return horizontal_flip(pad_crop(images, padding, generator), generator)


def _find(
    name: str | Path | Sequence[str],
    split: str,
    root: str | Path | None,
    *,
    skip: bool,
    allow_commands: bool,
) -> Index:
    """Return the index of a set, or one built from shards without an index."""
    sources = [name] if isinstance(name, str | Path) else list(name)
    if not isinstance(name, str | Path) or _names_shards(str(name)):
        urls = [url for source in sources for url in _expanded(str(source))]
        for url in urls:
            check_address(url, allow_commands=allow_commands)
        return scan_shards(urls, split, skip=skip, allow_commands=allow_commands)
    place = str(name)
    if not is_remote(place) and not Path(place).is_absolute():
        place = f"{_root(place, root).rstrip('/')}/{place}"
    return read_index(place if is_remote(place) else str(Path(place).absolute()))


def _names_shards(place: str) -> bool:
    if (Path(place) / "index.json").is_file():
        return False
    command = place.lower().startswith("pipe:")
    pattern = any(mark in place for mark in "*?{")
    return command or pattern or place.endswith(SHARD_ENDS)


def _expanded(source: str) -> list[str]:
    """Expand a pattern to addresses: braces and `::` as in WebDataset, then a glob."""
    if source.lower().startswith("pipe:"):
        return [source]
    urls: list[str] = []
    for url in expand_urls(source):
        found = [url]
        if not is_remote(url) and glob.has_magic(url) and not Path(url).exists():
            found = sorted(glob.glob(url))  # noqa: PTH207, Path.glob takes no absolute pattern
        if not found:
            raise FileNotFoundError(f"no file matches {url!r}; correct the pattern")
        # Shards are read in each epoch, also after an os.chdir.
        urls += [url if is_remote(url) else str(Path(url).absolute()) for url in found]
    return urls


def _statistics(
    index: Index, usual: Usual | None, shape: tuple[int, int, int], *, skip: bool, compute: bool
) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    if index.mean is not None and index.std is not None:
        # A constant channel has the standard deviation 0, which cannot be divided by.
        return index.mean, [value or 1.0 for value in index.std]
    if usual is not None and usual.mean is not None and usual.std is not None:
        return usual.mean, usual.std
    if not compute:
        return None, None
    if "train" not in index.splits:
        raise ValueError(
            f"the set {index.name!r} has neither mean and std nor a train split to take them from; "
            "pass mean and std"
        )
    train = shards_of(index, "train", check=not skip)
    return split_statistics(train, shape, len(index.classes), skip=skip)
