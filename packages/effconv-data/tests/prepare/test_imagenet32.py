"""Batches of downsampled ImageNet, read without the writer of shards."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from effconv_data.prepare import imagenet32
from effconv_data.prepare.types import quiet

spec = importlib.util.spec_from_file_location("official", Path(__file__).with_name("official.py"))
official = importlib.util.module_from_spec(spec)
spec.loader.exec_module(official)


def read(folder, splits=("train", "test"), **options):
    return imagenet32.read(folder, splits, checksum=False, on_progress=quiet, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Give a folder of archives of 16 pixels, and what they hold."""
    folder = tmp_path_factory.mktemp("imagenet")
    made, _ = official.imagenet16_npz(folder)
    return folder, made


def test_every_batch_is_a_block_whose_labels_begin_at_zero(folder):
    path, made = folder
    found = read(path, image_size=16)
    assert (found.name, found.image_shape) == ("imagenet16", (3, 16, 16))
    assert found.classes[:2] == ("1", "2")
    assert len(found.splits["train"]) == 10
    for split, (pixels, labels) in made.items():
        start = 0
        for block in found.splits[split]:
            count = len(block.labels)
            assert block.labels.tolist() == labels[start : start + count]
            found_pixels = block.open()(np.array([count - 1]))
            assert np.array_equal(found_pixels[0], pixels[start + count - 1])
            start += count
        assert start == len(labels)


@pytest.mark.parametrize(("size", "named"), [(32, "32 x 32"), (17, "17")])
def test_another_size_is_refused(size, named, folder):
    with pytest.raises(ValueError, match=named):
        read(folder[0], ["test"], image_size=size)


ROWS = np.zeros((2, 768), np.uint8)


@pytest.mark.parametrize(
    "arrays",
    [
        {"data": ROWS},
        {"data": ROWS.astype(np.int8), "labels": [1, 2]},
        {"data": ROWS[0], "labels": [1]},
        {"data": ROWS[:0], "labels": []},
        {"data": ROWS, "labels": [0, 1]},
        {"data": ROWS, "labels": [1, 1001]},
        {"data": ROWS, "labels": [1]},
    ],
)
def test_what_is_no_batch_is_named(arrays, tmp_path):
    np.savez(tmp_path / "val_data.npz", **arrays)
    with pytest.raises(ValueError, match=r"val_data\.npz"):
        read(tmp_path, ["test"], image_size=16)


def test_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "val_data.npz", data=np.array([{1}], dtype=object), labels=[1])
    with pytest.raises(ValueError, match=r"val_data\.npz"):
        read(tmp_path, ["test"], image_size=16)


def lines(**changes):
    names = {label: f"n{label:08d} {label} thing" for label in range(1, 1001)}
    return "\n".join({**names, **changes}.values())


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (lines(), True),
        (lines() + "\nREADME\n", True),
        (lines().replace(" 7 ", " 8 "), False),
        (lines().replace("n00000007 7 ", "n00000008 7 "), False),
        ("", False),
    ],
)
def test_names_of_classes_are_taken_where_there_is_one_for_each(text, holds, tmp_path):
    np.savez(tmp_path / "val_data.npz", data=ROWS, labels=[1, 1000])
    (tmp_path / "map_clsloc.txt").write_text(text)
    if holds:
        found = read(tmp_path, ["test"], image_size=16).classes
        assert (found[0], found[-1]) == ("n00000001 thing", "n00001000 thing")
    else:
        with pytest.raises(ValueError, match=r"map_clsloc\.txt"):
            read(tmp_path, ["test"], image_size=16)


def test_it_cannot_be_downloaded():
    with pytest.raises(ValueError, match="https://image-net.org"):
        imagenet32.downloads(["train"])
