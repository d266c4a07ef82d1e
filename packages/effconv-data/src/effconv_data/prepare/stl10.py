"""STL-10, the binary version; its 100,000 unlabelled images are left out.

An image is three planes, red, green, blue, each column by column. Labels run from 1 to 10.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effconv_data.prepare.archives import Layout, Published, check_labels, read_files
from effconv_data.prepare.types import Archive, Block, OnProgress

__all__ = ["SPLITS", "downloads", "read"]

SPLITS = ("train", "test")
LAYOUT = Layout(
    Published(
        "stl10_binary.tar.gz",
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        "91f7769df0f17e558f3565bffb0c7dfb",
        largest=1 << 32,
    ),
    "stl10_binary",
)
SIDE = 96
IMAGE = 3 * SIDE * SIDE
NUM_CLASSES = 10


def downloads(splits: Sequence[str]) -> list[Published]:
    """Return the published archive; it holds all splits."""
    return [LAYOUT.archive]


def read(
    source: Path, splits: Sequence[str], *, checksum: bool, on_progress: OnProgress
) -> Archive:
    """Read STL-10; see `prepare` for the arguments and errors."""
    names = ["class_names.txt"]
    names += [f"{split}_{part}.bin" for split in splits for part in "Xy"]
    _, contents, records = read_files(
        source, [LAYOUT], [names], checksum=checksum, on_progress=on_progress
    )
    data = dict(zip(names, contents, strict=True))
    classes = tuple(data["class_names.txt"].decode("ascii", errors="replace").split())
    if len(classes) != NUM_CLASSES or len(set(classes)) != NUM_CLASSES:
        raise ValueError(
            f"class_names.txt of {source} names the classes {classes!r:.80}; STL-10 has "
            f"{NUM_CLASSES} different ones, so get the archive again"
        )
    blocks = {}
    for split in splits:
        images_name, labels_name = f"{split}_X.bin", f"{split}_y.bin"
        pixels, labels = data[images_name], np.frombuffer(data[labels_name], np.uint8)
        if not pixels or len(pixels) % IMAGE:
            raise ValueError(
                f"{images_name} of {source} has {len(pixels)} bytes, which is not a whole number "
                f"of images of {IMAGE}; get the archive again"
            )
        planes = np.frombuffer(pixels, np.uint8).reshape(-1, 3, SIDE, SIDE)
        # Column by column: the third axis runs over x, the fourth over y.
        images = planes.transpose(0, 3, 2, 1)
        labels = check_labels(labels, len(images), f"{labels_name} of {source}", 1, NUM_CLASSES)
        blocks[split] = [Block(labels, lambda images=images: images.__getitem__)]
    notes = ("the images without labels (unlabeled_X.bin) are left out",)
    return Archive("stl10", classes, (3, SIDE, SIDE), blocks, records, notes)
