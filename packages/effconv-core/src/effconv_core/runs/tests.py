"""`test.json` of a run: how each of its networks did on the test, class by class."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from effconv_core.engine.by_class import ByClass
from effconv_core.io.atomic import write_text
from effconv_core.io.read_json import read_json
from effconv_core.io.schemas import MOST_CLASSES, MistakeRecord, TestRecord

FILE = "test.json"
LONGEST_SIDE = 128
"""Pixels of a kept picture's longer side, at most."""


def record(
    outcome: ByClass,
    classes: Sequence[str],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> TestRecord:
    """Return what is kept of a test.

    Args:
        outcome: of the test.
        classes: class names in label order; empty if unknown.
        mean: `(C,)`, by which the images were normalised; None keeps no pictures.
        std: as `mean`.
    """
    return TestRecord(
        list(classes[:MOST_CLASSES]),
        [tuple(row) for row in outcome.counts[:MOST_CLASSES].tolist()],
        outcome.confusion.tolist(),
        [
            MistakeRecord(m.index, m.label, m.guess, m.probability, _png(m.image, mean, std))
            for m in outcome.mistakes
        ],
    )


def write_tests(folder: Path, tests: Mapping[str, TestRecord]) -> None:
    """Write the tests of a run: `learned`, `original` or both."""
    write_text(folder / FILE, msgspec.json.encode(tests).decode() + "\n")


def read_tests(folder: Path) -> dict[str, TestRecord]:
    """Read the tests of a run; empty where an earlier release wrote none.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is none that a run writes.
    """
    try:
        tests = read_json(folder / FILE, dict[str, TestRecord])
    except FileNotFoundError:
        return {}
    for name, test in tests.items():
        sides = {len(test.confusion), *map(len, test.confusion)}
        square = not test.confusion or sides == {len(test.counts)}
        if not square or any(right > samples for samples, right in test.counts):
            raise ValueError(
                f"{folder / FILE} has counts of {name!r} that no test gives; test the run again by "
                "`effconv evaluate`, and delete the file"
            )
    return tests


def _png(image: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> str | None:
    """Return a normalised image as a PNG in base 64; None of what is no image."""
    if mean is None or std is None or image.dim() != 3 or len(image) not in (1, 3):
        return None
    scale, shift = (torch.tensor(values)[:, None, None] for values in (std, mean))
    pixels = ((image * scale + shift).clamp(0, 1) * 255).round().to(torch.uint8)
    array = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    shown = Image.fromarray(array[..., 0] if len(image) == 1 else array)
    shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    shown.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
