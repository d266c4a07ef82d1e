"""MNIST: four idx files, compressed by gzip or not.

An idx file is a big-endian magic number, whose last byte is the number of dimensions, the size of
each dimension, and the bytes of the array in row-major order.
"""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effconv_data.io.packed import unpacked
from effconv_data.prepare.archives import Published, check_labels, find, record
from effconv_data.prepare.types import Archive, Block, OnProgress

__all__ = ["SPLITS", "downloads", "read"]

SPLITS = ("train", "test")
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
# For each split the images' file, then the labels'.
STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
SIDE = 28
LARGEST_UNPACKED = 1 << 28
"""Bytes; the images of MNIST are 47 million."""
OTHER = {"train": "test", "test": "train"}


def downloads(splits: Sequence[str]) -> list[Published]:
    """Return the published files of given splits."""
    return [_published(stem) for split in splits for stem in STEMS[split]]


def read(
    source: Path, splits: Sequence[str], *, checksum: bool, on_progress: OnProgress
) -> Archive:
    """Read MNIST; see `prepare` for the arguments and errors."""
    blocks, records = {}, []

    def idx(split: str, stem: str, sizes: tuple[int, ...]) -> tuple[Path, np.ndarray]:
        dotted = stem.replace("-idx", ".idx")
        path = find(
            source,
            [f"{stem}.gz", stem, f"{dotted}.gz", dotted],
            f"put it there, or prepare only the {OTHER[split]} split (--splits {OTHER[split]})",
        )
        published = _published(stem) if path.name == f"{stem}.gz" else None
        records.append(record(path, published, checksum=checksum, on_progress=on_progress))
        return path, _read_idx(path, sizes)

    for split in splits:
        images_stem, labels_stem = STEMS[split]
        _, images = idx(split, images_stem, (SIDE, SIDE))
        labels_path, labels = idx(split, labels_stem, ())
        labels = check_labels(labels, len(images), str(labels_path), 0, 9)
        blocks[split] = [Block(labels, lambda images=images[..., None]: images.__getitem__)]
    return Archive("mnist", tuple("0123456789"), (1, SIDE, SIDE), blocks, records)


def _published(stem: str) -> Published:
    return Published(f"{stem}.gz", f"{MIRROR}{stem}.gz", MD5[stem])


def _read_idx(path: Path, sizes: tuple[int, ...]) -> np.ndarray:
    """Read an idx file of bytes whose items have the given sizes: `(N, *sizes)` uint8."""
    if path.suffix == ".gz":
        try:
            with path.open("rb") as file:
                kind, stream = unpacked(file)
                if not kind:
                    raise ValueError("it is not packed")
                data = stream.read(LARGEST_UNPACKED + 1)
        except Exception as error:  # what unpacks it raises its own types
            raise ValueError(f"{path} cannot be decompressed ({error}); get it again") from error
        if len(data) > LARGEST_UNPACKED:
            raise ValueError(
                f"{path} unpacks to more than {LARGEST_UNPACKED} bytes; get the official file, or "
                "unpack it yourself"
            )
    else:
        data = path.read_bytes()
    dimensions = 1 + len(sizes)
    # 8 is the code of unsigned bytes.
    magic, header = 8 << 8 | dimensions, 4 + 4 * dimensions
    if len(data) < header:
        raise ValueError(f"{path} has {len(data)} bytes, less than an idx header; get it again")
    found, count, *found_sizes = struct.unpack(f">{1 + dimensions}I", data[:header])
    if found != magic:
        raise ValueError(
            f"{path} begins with the magic number {found:#010x}; an idx file of {dimensions} "
            f"dimensions of bytes begins with {magic:#010x}, so check which file this is"
        )
    if tuple(found_sizes) != sizes:
        raise ValueError(
            f"{path} holds images of {' x '.join(map(str, found_sizes))} pixels; those of MNIST "
            f"are {' x '.join(map(str, sizes))}, so check which set this is"
        )
    expected = header + count * int(np.prod(sizes, dtype=np.int64))
    if len(data) != expected or count == 0:
        raise ValueError(
            f"{path} has {len(data)} bytes but its header promises {count} items in {expected} "
            "bytes; get it again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(count, *sizes)
