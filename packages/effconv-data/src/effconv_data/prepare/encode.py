"""Encode a shard: the same bytes for the same samples."""

import io
import tarfile
from typing import NamedTuple

import numpy as np
from PIL import Image

from effconv_data.prepare.types import Pixels

__all__ = ["Encoded", "encode_shard"]


class Encoded(NamedTuple):
    """A shard and its counts."""

    tar: bytes
    class_counts: list[int]
    """Samples of each class."""
    histogram: list[list[int]]
    """`(C, 256)`: number of pixels of each value for each channel."""


def encode_shard(
    pixels: Pixels, labels: np.ndarray, numbers: np.ndarray, num_classes: int
) -> Encoded:
    """Write samples as a plain ustar archive, two members each: `KEY.png` and `KEY.cls`.

    Args:
        pixels: `(N, H, W, C)` uint8, or a function that returns them.
        labels: `(N,)` int64.
        numbers: `(N,)` integers, which become the keys in eight digits.
        num_classes: number of classes.
    """
    pixels = pixels() if callable(pixels) else pixels
    out = io.BytesIO()
    # One format, no time and no owner, so that equal samples give equal bytes on all machines.
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for image, label, number in zip(pixels, labels.tolist(), numbers.tolist(), strict=True):
            png = io.BytesIO()
            Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(png, "PNG")
            for suffix, data in (("png", png.getvalue()), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number:08d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    histogram = [
        np.bincount(pixels[..., channel].ravel(), minlength=256).tolist()
        for channel in range(pixels.shape[3])
    ]
    return Encoded(out.getvalue(), np.bincount(labels, minlength=num_classes).tolist(), histogram)
