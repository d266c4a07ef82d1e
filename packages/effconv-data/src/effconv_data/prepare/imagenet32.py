"""Downsampled ImageNet of 16, 32 or 64 pixels: batches as npz files or as pickles.

A batch has `data` `(N, 3 * size * size)` uint8, an image as three planes, red, green, blue, each
row by row, and `labels` from 1 to 1000. A train split of 1.28 million images comes in ten
batches, mixed by their authors. One batch is held in memory at a time; the samples are shuffled
within it.
"""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from effconv_data.io.read_json import read_limited
from effconv_data.prepare.archives import Published, check_labels, find, record
from effconv_data.prepare.pickles import read_pickle
from effconv_data.prepare.types import Archive, Block, OnProgress

__all__ = ["SIZES", "SPLITS", "downloads", "read"]

SPLITS = ("train", "test")
SIZES = (16, 32, 64)
PAGE = "https://image-net.org/download-images.php"
# The labels of the authors' test split were never published; the val split is used for tests.
FILES = {
    "train": [f"train_data_batch_{number}" for number in range(1, 11)],
    "test": ["val_data"],
}
NAMES = "map_clsloc.txt"
NUM_CLASSES = 1000
MOST_IMAGES = 200_000
"""In one file; the largest has 128,117."""


def downloads(splits: Sequence[str]) -> list[Published]:
    """Raise, because ImageNet is available only to users who sign in.

    Raises:
        ValueError: always; the message says where to get the archives.
    """
    raise ValueError(
        f"ImageNet cannot be downloaded for you, because its site asks each user to sign in; get "
        f"the archives at {PAGE} under 'Download downsampled image data', unpack them into one "
        "folder and pass that as the source"
    )


def read(
    source: Path,
    splits: Sequence[str],
    *,
    checksum: bool,
    on_progress: OnProgress,
    image_size: int = 32,
) -> Archive:
    """Read downsampled ImageNet; see `prepare` for the arguments and errors."""
    if image_size not in SIZES:
        raise ValueError(f"image_size is {image_size}; ImageNet comes in 16, 32 or 64, so pass one")
    paths = {
        split: [
            find(
                source,
                [f"{file}.npz", file],
                f"unpack all archives of {PAGE} into this folder, or prepare only the other split "
                "(--splits)",
            )
            for file in FILES[split]
        ]
        for split in splits
    }
    used = [path for split in splits for path in paths[split]]
    classes = tuple(str(label) for label in range(1, NUM_CLASSES + 1))
    if (source / NAMES).is_file():
        classes = _classes(source / NAMES)
        used.append(source / NAMES)
    records = [record(path, None, checksum=checksum, on_progress=on_progress) for path in used]
    # Each batch is read here once for its labels and checks, so that no error comes hours later.
    blocks = {
        split: [Block(_read(path, image_size)[1], _opener(path, image_size)) for path in files]
        for split, files in paths.items()
    }
    shape = (3, image_size, image_size)
    return Archive(f"imagenet{image_size}", classes, shape, blocks, records)


def _opener(path: Path, size: int) -> Callable[[], Callable[[np.ndarray], np.ndarray]]:
    def select() -> Callable[[np.ndarray], np.ndarray]:
        pixels, _ = _read(path, size)
        return pixels.reshape(-1, 3, size, size).transpose(0, 2, 3, 1).__getitem__

    return select


def _read(path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Read a batch: pixels `(N, 3 * size * size)` uint8, labels `(N,)` int64 from 0."""
    if path.suffix == ".npz":
        parts = _read_npz(path, size)
    else:
        with path.open("rb") as file:
            parts = read_pickle(file, str(path))
    if not isinstance(parts, dict) or not {"data", "labels"} <= parts.keys():
        raise ValueError(f"{path} has no 'data' and 'labels'; get the archive again")
    pixels, labels = parts["data"], parts["labels"]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise ValueError(f"{path} has data that are not rows of bytes; get the archive again")
    row = 3 * size * size
    if pixels.shape[1] != row or not len(pixels):
        raise ValueError(
            f"{path} has data of shape {pixels.shape}; images of {size} x {size} pixels are rows "
            f"of {row} bytes, so check the image size"
        )
    return pixels, check_labels(labels, len(pixels), str(path), 1, NUM_CLASSES)


def _read_npz(path: Path, size: int) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
        for name, each in (("data.npy", 3 * size * size), ("labels.npy", 8)):
            if sizes.get(name, 0) > MOST_IMAGES * each:
                raise ValueError(f"{name} unpacks to {sizes[name]} bytes, more than it may")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("data", "labels") if name in arrays}
    except Exception as error:  # NumPy, zipfile and zlib each raise their own types
        raise ValueError(f"{path} cannot be read ({error}); get the archive again") from error


def _classes(path: Path) -> tuple[str, ...]:
    """Read the class names, lines such as `n02119789 1 kit_fox`: WordNet's number and a name."""
    names: dict[int, str] = {}
    for line in read_limited(path, 1 << 20).decode("utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[1].isdecimal():
            # Two pairs of classes share a name, but not a number.
            names[int(words[1])] = f"{words[0]} {words[2]}"
    if sorted(names) != list(range(1, NUM_CLASSES + 1)) or len(set(names.values())) != NUM_CLASSES:
        raise ValueError(
            f"{path} does not give each label from 1 to {NUM_CLASSES} its own name, in lines "
            "such as 'n02119789 1 kit_fox'; get it again or take it away"
        )
    return tuple(names[label] for label in sorted(names))
