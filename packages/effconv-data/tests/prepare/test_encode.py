"""Shards that are encoded: what they hold, and that they are the same bytes everywhere."""

import io
import os
import tarfile
import time

import numpy as np
import pytest
from effconv_data.prepare.encode import encode_shard
from PIL import Image

LABELS, NUMBERS = np.array([2, 0, 2]), np.array([7, 12345678, 0])


def drawn(channels):
    shape = (3, 4, 5, channels)
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("lazy", [False, True])
def test_samples_are_images_and_labels_by_number(channels, lazy):
    pixels = drawn(channels)
    made = encode_shard((lambda: pixels) if lazy else pixels, LABELS, NUMBERS, 4)
    with tarfile.open(fileobj=io.BytesIO(made.tar)) as tar:
        names = tar.getnames()
        assert names == [f"{number:08d}.{part}" for number in NUMBERS for part in ("png", "cls")]
        for place, number in enumerate(NUMBERS):
            image = Image.open(tar.extractfile(f"{number:08d}.png"))
            assert np.array_equal(np.asarray(image).reshape(4, 5, channels), pixels[place])
            assert int(tar.extractfile(f"{number:08d}.cls").read()) == LABELS[place]


def test_classes_and_values_are_counted():
    pixels = drawn(3)
    made = encode_shard(pixels, LABELS, NUMBERS, 4)
    assert made.class_counts == [1, 0, 2, 0]
    assert np.shape(made.histogram) == (3, 256)
    for channel in range(3):
        for value in (0, 17, 255):
            assert made.histogram[channel][value] == (pixels[..., channel] == value).sum()


def test_neither_time_nor_user_is_in_the_bytes(monkeypatch):
    first = encode_shard(drawn(1), LABELS, NUMBERS, 4).tar
    monkeypatch.setattr(time, "time", lambda: 5e8)
    monkeypatch.setattr(os, "getuid", lambda: 1234, raising=False)
    assert encode_shard(drawn(1), LABELS, NUMBERS, 4).tar == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}


def test_labels_of_another_number_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        encode_shard(drawn(1), LABELS[:2], NUMBERS, 4)
