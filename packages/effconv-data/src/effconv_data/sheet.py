"""A sheet of samples, to look at a set before an hour is spent on it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from effconv_data.index import Index
from effconv_data.samples import Problem, ShardError, decode, read_run
from effconv_data.split import first_shape, shards_of

__all__ = ["draw_sheet"]

SIDE = 64
"""Pixels of a drawn image's shorter side, at least."""
NAME_WIDTH, MARGIN = 160, 4
ROWS = 50


def draw_sheet(index: Index, split: str, *, columns: int = 10) -> Image.Image:
    """Draw the first samples of each class in a row of their own, beside the class's name.

    Of many classes the first 50 are drawn.

    Args:
        index: the set.
        split: one of its splits.
        columns: samples of each class.

    Raises:
        ValueError: if there is no such split, or no image of it can be read.
    """
    shards = shards_of(index, split)
    C, H, W = first_shape(index, shards)
    classes = index.classes[:ROWS]
    rows: list[list[np.ndarray]] = [[] for _ in classes]
    for shard, sample in read_run((shard, 0, shard.samples) for shard in shards):
        if isinstance(sample, Problem):
            continue
        try:
            image, label = decode(shard, sample, (C, H, W), len(index.classes))
        except ShardError:
            continue
        if label < len(rows) and len(rows[label]) < columns:
            rows[label].append(image)
        if all(len(row) == columns for row in rows):
            break
    return _drawn(classes, rows, (H, W), columns)


def _drawn(
    classes: Sequence[str],
    rows: Sequence[Sequence[np.ndarray]],
    size: tuple[int, int],
    columns: int,
) -> Image.Image:
    scale = max(1, -(-SIDE // min(size)))
    height, width = (side * scale + MARGIN for side in size)
    sheet = Image.new("RGB", (NAME_WIDTH + columns * width, len(rows) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (name, images) in enumerate(zip(classes, rows, strict=True)):
        middle = number * height + height // 2
        draw.text((MARGIN, middle), name, fill="black", anchor="lm", font=font)
        for column, image in enumerate(images):
            pixels = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
            enlarged = pixels.resize((size[1] * scale, size[0] * scale), Image.Resampling.NEAREST)
            sheet.paste(enlarged, (NAME_WIDTH + column * width, number * height + MARGIN // 2))
    return sheet
