"""Folders of images, made and prepared."""

from collections import Counter

import numpy as np
import pytest
from effconv_data.prepare import prepare_folder
from PIL import Image

RANDOM = np.random.default_rng(0)


def picture(path, size=(6, 5), mode="RGB", **options):
    """Write random pixels as an image file of (width, height); give the pixels (H, W[, C])."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "LA": (2,), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    pixels = RANDOM.integers(256, size=(size[1], size[0], *channels), dtype=np.uint8)
    Image.fromarray(pixels, mode=None if mode != "CMYK" else "CMYK").save(path, **options)
    return pixels


def run(source, out, **options):
    return prepare_folder(source, out=out, **{"workers": 1, **options})


def counted(images, labels):
    rows = (np.ascontiguousarray(image).tobytes() for image in images)
    return Counter(zip(rows, map(int, labels), strict=True))


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "flowers"


def divided(source, splits=("train", "test"), classes=("iris", "rose"), **options):
    """Write three images of each class and split; give pixels and labels by split."""
    made = {}
    for split in splits:
        pixels = [
            picture(source / split / name / f"{number}.png", **options)
            for name in classes
            for number in range(3)
        ]
        made[split] = np.stack(pixels), np.repeat(np.arange(len(classes)), 3)
    return made


def undivided(source, counts):
    for name, count in counts.items():
        for number in range(count):
            picture(source / name / f"{number:03d}.png")
