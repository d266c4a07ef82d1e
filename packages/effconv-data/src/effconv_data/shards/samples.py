"""Read the samples of parts of shards, and decode them."""

import io
import math
import re
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from effconv_data.shards.index import LARGEST_IMAGE, Shard
from effconv_data.shards.problems import Problem, Sample, ShardError, unusable
from effconv_data.shards.stages import counted_samples, told_cut

__all__ = ["check_size", "decode", "read_run", "slim"]

IMAGE_PARTS = ("jpg", "jpeg", "png")
OTHER_PARTS = ("cls", "txt", "json", "npy", "npz")
"""Other parts that a sample may have; none of them can run code when it is read."""
NEEDED_PARTS = (*IMAGE_PARTS, "cls")
CHANNELS = {"L": 1, "RGB": 3}
IMAGE_EXTRA = 1 << 18
"""Bytes that an image file may have in addition to its pixels, such as a colour profile."""
SLIM_EXTRA = 1 << 14
"""As `IMAGE_EXTRA`, of samples that wait to be decoded."""


def read_run(runs: Iterable[tuple[Shard, int, int]]) -> Iterator[tuple[Shard, Sample | Problem]]:
    """Yield the samples of parts of shards, one item each, whatever is damaged.

    Args:
        runs: shard, its first sample, and the end of the range.

    Yields:
        The shard, and the sample or its problem.
    """
    for shard, first, stop in runs:
        at, problem = 0, None
        try:
            for sample in counted_samples(shard, stop):
                if at >= first:
                    yield shard, sample
                at += 1
        except ShardError as error:
            problem = error.problem
        # Behind the error, whose frames hold the bytes of the sample at which it came.
        if problem is not None:
            for _ in range(max(at, first), stop):
                yield shard, problem


def decode(
    shard: Shard, sample: Sample, shape: tuple[int, int, int] | None, num_classes: int
) -> tuple[np.ndarray, int]:
    """Return a sample's image `(C, H, W)` uint8 and its label.

    Args:
        shard: the sample's shard.
        sample: the sample.
        shape: required shape of the image; None takes any.
        num_classes: labels run from 0 to one less.

    Raises:
        ShardError: if a part is not allowed, the image is missing, cannot be decoded or has another
            shape, or the label is missing or out of range.
    """
    _check_parts(shard, sample)
    if shape is not None:
        check_size(shard, sample, shape)
    return _image(shard, sample, shape), _label(shard, sample, num_classes)


def slim(shard: Shard, sample: Sample, shape: tuple[int, int, int], num_classes: int) -> Sample:
    """Return a sample without what is not needed, in at most about twice the bytes of its pixels.

    Thousands of samples are held undecoded, so a small shard that unpacks to large ones could
    otherwise fill the memory.

    Raises:
        ShardError: as `decode` does, where a part may not be there or the sample is large.
    """
    _check_parts(shard, sample)
    needed = Sample(sample.key, {k: d for k, d in sample.parts.items() if k in NEEDED_PARTS})
    if sum(map(len, needed.parts.values())) <= 2 * math.prod(shape) + SLIM_EXTRA:
        return needed
    image, label = decode(shard, needed, shape, num_classes)
    pixels, png = image.transpose(1, 2, 0), io.BytesIO()
    Image.fromarray(pixels[..., 0] if shape[0] == 1 else pixels).save(png, "PNG")
    return Sample(sample.key, {"png": png.getvalue(), "cls": str(label).encode()})


def _check_parts(shard: Shard, sample: Sample) -> None:
    for part in sample.parts:
        if part.rsplit(".", 1)[-1] not in IMAGE_PARTS + OTHER_PARTS:
            raise unusable(
                shard.url,
                sample.key,
                f"has the member {sample.key}.{part}; only {', '.join(IMAGE_PARTS + OTHER_PARTS)} "
                "are read, because others may run code, so write the shard without it",
            )


def check_size(shard: Shard, sample: Sample, shape: tuple[int, int, int]) -> None:
    """Check that a sample is not larger than an image of shape `(C, H, W)` and a label can be.

    Raises:
        ShardError: if it is larger.
    """
    size = sum(len(data) for part, data in sample.parts.items() if part in NEEDED_PARTS)
    if size > 4 * math.prod(shape) + IMAGE_EXTRA:
        raise unusable(
            shard.url,
            sample.key,
            f"has {size} bytes, which no image of shape {shape} needs; write the shard again",
        )


def _image(shard: Shard, sample: Sample, shape: tuple[int, int, int] | None) -> np.ndarray:
    parts = [part for part in IMAGE_PARTS if part in sample.parts]
    if len(parts) != 1:
        cut = told_cut(sample.key, max(sample.parts, key=lambda part: "." in part, default=""))
        raise unusable(
            shard.url,
            sample.key,
            f"has {len(parts)} images; a sample has exactly one .jpg, .jpeg or .png, so write the "
            f"shard again{cut}",
        )
    try:
        image = Image.open(io.BytesIO(sample.parts[parts[0]]), formats=("JPEG", "PNG"))
        found = CHANNELS.get(image.mode, 0), image.height, image.width
        # Before the pixels, because a damaged header may ask for any number of them.
        if found == shape or (shape is None and image.height * image.width <= LARGEST_IMAGE):
            image.load()
    except Exception as error:  # Pillow's decoders raise many types on damaged input
        raise unusable(
            shard.url,
            sample.key,
            f"has a .{parts[0]} that cannot be decoded ({type(error).__name__}); copy the set "
            "again or write the shard again",
        ) from error
    if image.mode not in CHANNELS:
        raise unusable(
            shard.url,
            sample.key,
            f"is an image of mode {image.mode}; 8-bit grey (L) and RGB are allowed, so convert it",
        )
    if shape is None and image.height * image.width > LARGEST_IMAGE:
        raise unusable(
            shard.url,
            sample.key,
            f"has {image.height} x {image.width} pixels; {LARGEST_IMAGE} in all are allowed, so "
            "make it smaller",
        )
    if shape is not None and found != shape:
        raise unusable(
            shard.url,
            sample.key,
            f"has shape {found} but the set {shape}; make all images (C, H, W) alike",
        )
    return np.asarray(image).reshape(found[1], found[2], found[0]).transpose(2, 0, 1)


def _label(shard: Shard, sample: Sample, num_classes: int) -> int:
    if "cls" not in sample.parts:
        raise unusable(
            shard.url,
            sample.key,
            "has no .cls; every sample needs a label, so write the shard again",
        )
    text = sample.parts["cls"].strip()
    if not re.fullmatch(rb"[0-9]{1,18}", text):
        raise unusable(
            shard.url,
            sample.key,
            f"has the label {text[:20]!r}; a .cls holds decimal digits, so write the shard again",
        )
    label = int(text)
    if label >= num_classes:
        raise unusable(
            shard.url,
            sample.key,
            f"has label {label}; the index names {num_classes} classes, so labels run from 0 to "
            f"{num_classes - 1}: mend the index or the shard",
        )
    return label
