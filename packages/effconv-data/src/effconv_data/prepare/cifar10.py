"""CIFAR-10, the python version or the binary one.

In both, a row is an image as three planes, red, green, blue, each row by row. The python version
pickles dictionaries with `data` `(N, 3072)` and `labels`; the binary version writes each row as
the label's byte and then the pixels.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effconv_data.prepare.archives import Layout, Published, check_labels, read_files
from effconv_data.prepare.pickles import read_pickle
from effconv_data.prepare.types import Archive, Block, OnProgress

__all__ = ["SPLITS", "downloads", "read"]

SPLITS = ("train", "test")
SITE = "https://www.cs.toronto.edu/~kriz/"
PYTHON = Layout(
    Published(
        "cifar-10-python.tar.gz",
        f"{SITE}cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
    ),
    "cifar-10-batches-py",
)
BINARY = Layout(
    Published(
        "cifar-10-binary.tar.gz",
        f"{SITE}cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    "cifar-10-batches-bin",
)
FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
SIDE = 32
ROW = 3 * SIDE * SIDE
NUM_CLASSES = 10


def downloads(splits: Sequence[str]) -> list[Published]:
    """Return the published archive; it holds all splits."""
    return [PYTHON.archive]


def read(
    source: Path, splits: Sequence[str], *, checksum: bool, on_progress: OnProgress
) -> Archive:
    """Read CIFAR-10; see `prepare` for the arguments and errors."""
    files = [file for split in splits for file in FILES[split]]
    layout, contents, records = read_files(
        source,
        (PYTHON, BINARY),
        (["batches.meta", *files], ["batches.meta.txt", *(f"{file}.bin" for file in files)]),
        checksum=checksum,
        on_progress=on_progress,
    )
    meta, *batches = contents
    where = f"{layout.folder} of {source}"
    if layout is PYTHON:
        classes = _python_classes(meta, f"batches.meta in {where}")
        read_batch, suffix = _python_batch, ""
    else:
        classes = _binary_classes(meta, f"batches.meta.txt in {where}")
        read_batch, suffix = _binary_batch, ".bin"
    blocks = {}
    rows = iter(
        read_batch(data, f"{file}{suffix} in {where}")
        for file, data in zip(files, batches, strict=True)
    )
    for split in splits:
        pixels, labels = zip(*(next(rows) for _ in FILES[split]), strict=True)
        images = np.concatenate(pixels).reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        blocks[split] = [
            Block(np.concatenate(labels), lambda images=images: images.__getitem__),
        ]
    return Archive("cifar10", classes, (3, SIDE, SIDE), blocks, records)


def _python_classes(data: bytes, where: str) -> tuple[str, ...]:
    meta = read_pickle(io.BytesIO(data), where)
    return _classes(meta.get("label_names") if isinstance(meta, dict) else None, where)


def _binary_classes(data: bytes, where: str) -> tuple[str, ...]:
    return _classes(data.decode("ascii", errors="replace").split(), where)


def _classes(names: object, where: str) -> tuple[str, ...]:
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) != NUM_CLASSES
        or len(names) != NUM_CLASSES
    ):
        raise ValueError(
            f"{where} names the classes {names!r:.80}; CIFAR-10 has {NUM_CLASSES} different ones, "
            "so get the archive again"
        )
    return tuple(names)


def _python_batch(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    batch = read_pickle(io.BytesIO(data), where)
    pixels, labels = (
        (batch.get("data"), batch.get("labels")) if isinstance(batch, dict) else (None, None)
    )
    if not isinstance(pixels, np.ndarray) or labels is None:
        raise ValueError(
            f"{where} is not a dictionary with an array 'data' and 'labels'; get the archive again"
        )
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != ROW or not len(pixels):
        raise ValueError(
            f"{where} has data of shape {pixels.shape} and type {pixels.dtype}; images of CIFAR-10 "
            f"are rows of {ROW} bytes, so get the archive again"
        )
    return pixels, check_labels(labels, len(pixels), where, 0, NUM_CLASSES - 1)


def _binary_batch(data: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not data or len(data) % (1 + ROW):
        raise ValueError(
            f"{where} has {len(data)} bytes, which is not a number of rows of {1 + ROW}; get the "
            "archive again"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + ROW)
    return rows[:, 1:], check_labels(rows[:, 0], len(rows), where, 0, NUM_CLASSES - 1)
