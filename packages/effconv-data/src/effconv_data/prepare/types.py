"""What a reader of archives hands to the writer of shards."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Archive", "Block", "OnProgress", "Pixels", "Prepared", "Progress", "quiet"]

Pixels = np.ndarray | Callable[[], np.ndarray]
"""Images `(N, H, W, C)` uint8, or a picklable function that gives them in a worker process."""


class Progress(NamedTuple):
    """How far a piece of work is."""

    what: str
    """The piece of work in a few words, such as `"writing train"`; one bar of a display."""
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
    """Reads the images and gives a function from indices `(n,)` to those images."""


class Archive(NamedTuple):
    """A set as its archives hold it, every label and size checked."""

    name: str
    classes: tuple[str, ...]
    """In label order."""
    image_shape: tuple[int, int, int]
    """(C, H, W)."""
    splits: dict[str, list[Block]]
    sources: list[dict[str, str | int]]
    """What was read, for the index: names and sums."""
    notes: tuple[str, ...] = ()
    """What the user should know of what was left out or changed, a sentence each."""


class Prepared(NamedTuple):
    """What a preparation made."""

    folder: Path
    samples: dict[str, int]
    """By split."""
    shards: dict[str, int]
    """By split."""
    kept: int
    """Shards of an interrupted run that were found complete."""
    notes: tuple[str, ...]
    """What was left out or changed, a sentence each."""


def quiet(progress: Progress) -> None:
    """Show no progress."""
