"""`hatch run bench:data`: images per second and core, streamed, from memory and by other loaders.

All sides yield the same: shuffled batches of CIFAR-10's train split, padded, cropped, flipped and
normalised, or, with `--form uint8`, unchanged. Rounds are interleaved; a round of a side is one
epoch from the loop's first line to its last batch, including the start of worker processes.
"""

import io
import os
import statistics
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro
import webdataset as wds
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment
from effconv_data import load
from effconv_data.load import KNOWN
from rich.console import Console
from torch.utils.data import DataLoader

import tools.support.compat  # noqa: F401, before torchvision
from tools.bench.core import interleave, write
from tools.support.console import plain_bar, show

import torchvision  # isort: skip
from torchvision.transforms import v2  # isort: skip

MEAN, STD, PADDING = KNOWN["cifar10"]


@dataclass(frozen=True)
class DataOptions:
    """Time epochs of CIFAR-10's train split."""

    root: Path = Path(os.environ.get("EFFCONV_DATA", "data"))
    """The folder of all sets."""
    form: Literal["train", "uint8"] = "train"
    """Batches as used in training, or of unchanged 8-bit images."""
    batch_size: int = 128
    workers: int = 2
    """Worker processes of each side that has any; pass the number of cores."""
    rounds: int = 5
    out: Path | None = None
    """JSON file of the raw results; None writes none."""


def sides(options: DataOptions, pictures: Path) -> dict[str, Callable[[], Iterable]]:
    """Return what makes an epoch of each side, by name; what takes no epoch is done here."""
    training = options.form == "train"
    common = {
        "root": options.root,
        "batch_size": options.batch_size,
        "normalized": training,
        "augment": None if training else lambda images, generator: images,
    }
    streamed = load("cifar10", resident=False, workers=options.workers, **common)
    resident = load("cifar10", resident=True, **common)
    augment = v2.Compose(
        [
            v2.RandomCrop(32, PADDING),
            v2.RandomHorizontalFlip(),
            v2.ToTensor(),
            v2.Normalize(MEAN, STD),
        ]
        if training
        else [v2.PILToTensor()]
    )
    shards = sorted(map(str, (options.root / "cifar10").glob("train-*.tar.gz")))

    def webdataset() -> Iterable:
        # As in its documentation: shards and a buffer shuffled, decoded, mapped, batched.
        dataset = (
            wds.WebDataset(shards, shardshuffle=100)
            .shuffle(1000)
            .decode("pil")
            .to_tuple("jpg", "cls")
            .map_tuple(augment, int)
            .batched(options.batch_size)
        )
        return wds.WebLoader(dataset, batch_size=None, num_workers=options.workers)

    folder = torchvision.datasets.ImageFolder(str(pictures), augment)

    def image_folder() -> Iterable:
        return DataLoader(
            folder, options.batch_size, shuffle=True, num_workers=options.workers, drop_last=True
        )

    return {
        "effconv-data, streamed": lambda: streamed,
        "effconv-data, resident": lambda: resident,
        "webdataset": webdataset,
        "torchvision ImageFolder": image_folder,
    }


def unpack(root: Path, pictures: Path) -> None:
    """Write CIFAR-10's train images as an image folder."""
    for path in sorted((root / "cifar10").glob("train-*.tar.gz")):
        labels, images = {}, {}
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as file:
            for member in file:
                key, _, kind = member.name.partition(".")
                (labels if kind == "cls" else images)[key] = file.extractfile(member).read()
        for key, image in images.items():
            place = pictures / labels[key].decode().strip()
            place.mkdir(exist_ok=True)
            (place / f"{path.name}-{Path(key).name}.jpg").write_bytes(image)


def time_epochs(
    epochs: dict[str, Callable[[], Iterable]], rounds: int, console: Console
) -> dict[str, list[float]]:
    """Return the images per second of each epoch, by side."""
    images: dict[str, list[int]] = {name: [] for name in epochs}

    def counted(name: str) -> None:
        images[name].append(sum(len(labels) for _, labels in epochs[name]()))

    with plain_bar(console) as progress:
        task = progress.add_task("rounds", total=rounds)
        times = interleave(
            {name: partial(counted, name) for name in epochs},
            rounds,
            device="cpu",
            after=lambda: progress.advance(task),
        )
    return {
        name: [count / seconds for count, seconds in zip(images[name], own, strict=True)]
        for name, own in times.items()
    }


def run(options: DataOptions, console: Console) -> None:
    """Time all sides, show what a core loads, and write the result."""
    # One thread per process: each side has the cores for its workers.
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as pictures:
        unpack(options.root, Path(pictures))
        rates = time_epochs(sides(options, Path(pictures)), options.rounds, console)
    # The resident side works in this process only, on one core.
    used = {name: 1 if "resident" in name else min(cores, options.workers) for name in rates}
    plain = statistics.median(rates["webdataset"]) / used["webdataset"]
    rows = []
    for name, values in rates.items():
        least, middle, most = (f(values) / used[name] for f in (min, statistics.median, max))
        told = f"{middle:,.0f}", f"{least:,.0f} to {most:,.0f}", f"{middle / plain:.2f}"
        rows.append((name, *told))
    content = {
        "form": options.form,
        "batch_size": options.batch_size,
        "workers": options.workers,
        "cores": cores,
        "images_per_second": rates,
        "versions": {"webdataset": wds.__version__, "torchvision": torchvision.__version__},
        "environment": environment("cpu"),
    }
    write(content, options.out, console)
    show(
        console,
        f"CIFAR-10, {options.form} batches of {options.batch_size}, {cores} cores",
        ("side", "images/s a core, median", "least to most", "times webdataset's"),
        rows,
    )


if __name__ == "__main__":
    run(tyro.cli(DataOptions, prog="bench:data"), PlainConsole())
