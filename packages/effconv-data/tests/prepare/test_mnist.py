"""MNIST's idx files, read without the writer of shards."""

import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest
from effconv_data import read_split
from effconv_data.prepare import mnist
from effconv_data.prepare.types import quiet

spec = importlib.util.spec_from_file_location("official", Path(__file__).with_name("official.py"))
official = importlib.util.module_from_spec(spec)
spec.loader.exec_module(official)


def read(folder, splits=("train", "test")):
    return mnist.read(folder, splits, checksum=False, on_progress=quiet)


@pytest.mark.parametrize("write", [official.mnist, official.mnist_plain, official.mnist_dotted])
def test_images_and_labels_are_those_of_the_files(write, tmp_path):
    made, names = write(tmp_path)
    found = read(tmp_path)
    assert (found.name, found.classes, found.image_shape) == ("mnist", tuple(names), (1, 28, 28))
    assert len(found.sources) == 4
    for split, (pixels, labels) in made.items():
        (block,) = found.splits[split]
        assert block.labels.tolist() == labels
        some = np.array([3, 0])
        assert np.array_equal(block.open()(some), pixels[some])


def test_a_split_whose_files_are_missing_does_not_hinder_the_other(tmp_path):
    (tmp_path / "source").mkdir()
    made, _ = official.mnist(tmp_path / "source")
    (tmp_path / "source" / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.*\(--splits test\)"):
        official.run(official.mnist, tmp_path / "source", tmp_path / "out")
    official.run(official.mnist, tmp_path / "source", tmp_path / "out", splits=["test"])
    assert len(read_split(tmp_path / "out", "test").labels) == len(made["test"][1])


IMAGES = "t10k-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda data: data[:9], "9"),
        (lambda data: b"\0\0\x0d\3" + data[4:], "0x00000d03"),
        (lambda data: data[:8] + struct.pack(">2I", 28, 27) + data[16:], "28 x 27"),
        (lambda data: data[:-1], "20"),
        (lambda data: data + b"\0", "20"),
        (lambda data: struct.pack(">4I", 0x803, 0, 28, 28), "0"),
    ],
)
def test_a_file_that_is_another_is_named(change, named, tmp_path):
    official.mnist_plain(tmp_path)
    path = tmp_path / IMAGES
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{IMAGES}.*{named}"):
        read(tmp_path, ["test"])


@pytest.mark.parametrize("labels", [[0, 10], [0]])
def test_labels_that_do_not_fit_are_refused(labels, tmp_path):
    official.mnist_plain(tmp_path)
    (tmp_path / IMAGES).write_bytes(official.idx(np.zeros((2, 28, 28, 1))))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(official.idx(labels))
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte"):
        read(tmp_path, ["test"])


def test_a_split_has_two_files_to_download():
    names = [published.file for published in mnist.downloads(["test"])]
    assert names == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    assert len(mnist.downloads(mnist.SPLITS)) == 4
