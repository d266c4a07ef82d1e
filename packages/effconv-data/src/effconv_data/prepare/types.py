"""Types that readers of archives pass to the writer of shards."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Archive", "Block", "OnProgress", "Pixels", "Prepared", "Progress", "quiet"]

Pixels = np.ndarray | Callable[[], np.ndarray]
"""Images `(N, H, W, C)` uint8, or a picklable function that returns them in a worker process."""


class Progress(NamedTuple):
    """Progress of a piece of work."""

    what: str
    """Name of the piece of work, such as `"writing train"`; one bar of a display."""
    done: int
    total: int | None
    """None where it is not known."""
    unit: str
    """`"samples"` or `"bytes"`."""


OnProgress = Callable[[Progress], None]


class Block(NamedTuple):
    """Samples that are read together and shuffled among themselves."""

    labels: np.ndarray
    """`(N,)` int64, indices into the classes."""
    open: Callable[[], Callable[[np.ndarray], Pixels]]
    """Reads the images; returns a function from indices `(n,)` to those images."""


class Archive(NamedTuple):
    """A set as stored in its archives, with labels and sizes checked."""

    name: str
    classes: tuple[str, ...]
    """Class names in label order."""
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    splits: dict[str, list[Block]]
    sources: list[dict[str, str | int]]
    """What was read, for the index: names and checksums."""
    notes: tuple[str, ...] = ()
    """Notes for the user on omitted or changed data, a sentence each."""


class Prepared(NamedTuple):
    """The result of a preparation."""

    folder: Path
    samples: dict[str, int]
    """By split."""
    shards: dict[str, int]
    """By split."""
    kept: int
    """Number of shards of an interrupted run that were complete."""
    notes: tuple[str, ...]
    """Notes on omitted or changed data, a sentence each."""


def quiet(progress: Progress) -> None:
    """Ignore progress."""
