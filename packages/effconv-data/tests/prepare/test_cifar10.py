"""CIFAR-10's rows, pickled or binary, read without the writer of shards."""

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
from effconv_data.prepare import cifar10
from effconv_data.prepare.types import quiet

spec = importlib.util.spec_from_file_location("official", Path(__file__).with_name("official.py"))
official = importlib.util.module_from_spec(spec)
spec.loader.exec_module(official)


def read(folder, splits=("train", "test")):
    return cifar10.read(folder, splits, checksum=False, on_progress=quiet)


@pytest.mark.parametrize(
    "write",
    [
        official.cifar_python_packed,
        official.cifar_python_newly_pickled,
        official.cifar_binary_unpacked,
    ],
)
def test_rows_are_planes_and_batches_follow_each_other(write, tmp_path):
    made, names = write(tmp_path)
    found = read(tmp_path)
    assert (found.name, found.classes, found.image_shape) == ("cifar10", tuple(names), (3, 32, 32))
    for split, (pixels, labels) in made.items():
        (block,) = found.splits[split]
        assert block.labels.tolist() == labels
        some = np.array([len(labels) - 1, 0])
        assert np.array_equal(block.open()(some), pixels[some])


def unpacked(tmp_path, name, change):
    official.cifar_python_newly_pickled(tmp_path)
    path = tmp_path / name
    path.write_bytes(change(pickle.loads(path.read_bytes())))


def with_(**changes):
    return lambda batch: pickle.dumps({**batch, **changes})


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("test_batch", with_(data=np.zeros((12, 3071), np.uint8)), "3071"),
        ("test_batch", with_(data=np.zeros((12, 3072), np.int8)), "int8"),
        ("test_batch", with_(data=np.zeros((0, 3072), np.uint8)), "0"),
        ("test_batch", with_(labels=[0] * 11), "test_batch"),
        ("test_batch", with_(labels=[10] * 12), "10"),
        ("test_batch", lambda batch: pickle.dumps([1]), "data"),
        ("batches.meta", with_(label_names=["cat"] * 10), "cat"),
        ("batches.meta", with_(label_names=list("abc")), "10"),
        ("batches.meta", with_(label_names=list(range(10))), "batches.meta"),
    ],
)
def test_what_is_no_batch_is_named(name, change, named, tmp_path):
    unpacked(tmp_path, name, change)
    with pytest.raises(ValueError, match=named):
        read(tmp_path, ["test"])


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_a_binary_batch_has_whole_rows(size, tmp_path):
    official.cifar_binary_unpacked(tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"\0" * size)
    with pytest.raises(ValueError, match=rf"test_batch\.bin.* {size} "):
        read(tmp_path, ["test"])


def test_one_archive_holds_all_splits():
    (one,) = cifar10.downloads(["test"])
    assert cifar10.downloads(cifar10.SPLITS) == [one]
