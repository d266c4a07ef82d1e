"""STL-10's planes, column by column, read without the writer of shards."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from effconv_data.prepare import stl10
from effconv_data.prepare.types import quiet

spec = importlib.util.spec_from_file_location("official", Path(__file__).with_name("official.py"))
official = importlib.util.module_from_spec(spec)
spec.loader.exec_module(official)


def read(folder, splits=("train", "test")):
    return stl10.read(folder, splits, checksum=False, on_progress=quiet)


@pytest.mark.parametrize("write", [official.stl_packed, official.stl_unpacked])
def test_images_stand_upright_and_labels_begin_at_zero(write, tmp_path):
    made, names = write(tmp_path)
    found = read(tmp_path)
    assert (found.name, found.classes, found.image_shape) == ("stl10", tuple(names), (3, 96, 96))
    for split, (pixels, labels) in made.items():
        (block,) = found.splits[split]
        assert block.labels.tolist() == labels
        some = np.array([2, 0])
        assert np.array_equal(block.open()(some), pixels[some])


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        ("test_X.bin", b"", "0"),
        ("test_X.bin", b"\0" * 27649, "27649"),
        ("test_y.bin", b"\1\2", "2"),
        ("test_y.bin", b"\0\1\2", "label 0"),
        ("test_y.bin", b"\1\2\x0b", "label 11"),
        ("class_names.txt", b"cat dog", "cat"),
        ("class_names.txt", b"cat " * 10, "cat"),
    ],
)
def test_a_file_that_does_not_fit_is_named(name, data, named, tmp_path):
    official.stl_unpacked(tmp_path)
    (tmp_path / "stl10_binary" / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name.split('.')[0]}.*{named}"):
        read(tmp_path, ["test"])


def test_one_archive_holds_all_splits():
    (one,) = stl10.downloads(["test"])
    assert stl10.downloads(stl10.SPLITS) == [one]
