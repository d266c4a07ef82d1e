"""Samples that cannot be decoded are named with what is wrong."""

import io
import pickle

import numpy as np
import pytest
from effconv_data import read_split
from PIL import Image


def test_jpeg_is_decoded_as_pillow_does(small_set, encode):
    made = small_set(shards={"train": [1]})
    jpeg = encode(made.pixels["train"][0], "JPEG")
    made.members["train-00000.tar.gz"][0] = ("train-000000.JPG", jpeg)
    (image,) = read_split(made.write(), "train").images
    assert np.array_equal(image.permute(1, 2, 0), np.asarray(Image.open(io.BytesIO(jpeg))))


def drop_label(members, encode):
    del members[3]


def drop_image(members, encode):
    del members[2]


def spoil_image(members, encode):
    members[2] = (members[2][0], b"\x89PNG\r\n\x1a\nbut no image")


def cut_image(members, encode):
    members[2] = (members[2][0], members[2][1][:60])


def second_image(members, encode):
    members.insert(3, ("train-000005.jpg", members[2][1]))


def transparent_image(members, encode):
    members[2] = (members[2][0], encode(np.zeros((6, 5, 4), np.uint8)))


def gif_image(members, encode):
    members[2] = (members[2][0], encode(np.zeros((6, 5), np.uint8), "GIF"))


def larger_image(members, encode):
    members[2] = (members[2][0], encode(np.zeros((6, 6, 3), np.uint8)))


def grey_image(members, encode):
    members[2] = (members[2][0], encode(np.zeros((6, 5), np.uint8)))


def label_too_large(members, encode):
    members[3] = (members[3][0], b"3")


def label_negative(members, encode):
    members[3] = (members[3][0], b"-1")


def label_a_word(members, encode):
    members[3] = (members[3][0], b"dog")


def label_endless(members, encode):
    members[3] = (members[3][0], b"1" * 5000)


def label_pickled(members, encode):
    members[3] = (members[3][0], pickle.dumps(1))


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (drop_label, r"\.cls"),
        (drop_image, " 0 "),
        (spoil_image, r"\.\w+ "),
        (cut_image, r"\.\w+ "),
        (second_image, " 2 "),
        (transparent_image, "RGBA"),
        (gif_image, r"\.\w+ "),
        (larger_image, r"\(3, 6, 6\) .*\(3, 6, 5\)"),
        (grey_image, r"\(1, 6, 5\)"),
        (label_too_large, "label 3.* 3 "),
        (label_negative, "-1"),
        (label_a_word, "dog"),
        (label_endless, "1111"),
        (label_pickled, "label"),
    ],
)
def test_bad_sample_is_named(small_set, encode, damage, problem):
    made = small_set()
    damage(made.members["train-00001.tar.gz"], encode)
    folder = made.write()
    with pytest.raises(
        ValueError, match=rf"train-000005 .*train-00001\.tar\.gz .*{problem}"
    ) as raised:
        read_split(folder, "train")
    assert "\n" not in str(raised.value)
