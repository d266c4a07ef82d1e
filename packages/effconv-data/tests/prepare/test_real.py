"""The official archives that lie in $EFFCONV_DATA, prepared."""

import json
from collections import Counter

import pytest
from effconv_data import read_split
from effconv_data.prepare import prepare


@pytest.fixture(scope="module")
def archives(real_data):
    if not (real_data / "archives" / "t10k-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"{real_data / 'archives'} does not hold the official archives")
    return real_data / "archives"


def counted(split):
    rows = (image.tobytes() for image in split.images.numpy())
    return Counter(zip(rows, split.labels.tolist(), strict=True))


def test_mnist_test_split_is_the_known_one(archives, real_data, tmp_path):
    if not (real_data / "mnist" / "index.json").is_file():
        pytest.skip(f"{real_data / 'mnist'} has no index.json")
    made = prepare("mnist", archives, out=tmp_path / "mnist", splits=["test"])
    assert made.samples == {"test": 10_000}
    assert made.shards == {"test": 8}
    found = read_split(tmp_path / "mnist", "test")
    known = read_split(real_data / "mnist", "test")
    assert found.classes == known.classes
    assert counted(found) == counted(known)
    index = json.loads((tmp_path / "mnist" / "index.json").read_text())
    # Of the MNIST paper's page.
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert index["splits"]["test"]["class_counts"] == counts


def test_missing_train_images_are_named(archives, tmp_path):
    if (archives / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"{archives} holds the train images too")
    with pytest.raises(FileNotFoundError, match="no file train-images-idx3-ubyte.gz .*--splits te"):
        prepare("mnist", archives, out=tmp_path / "mnist")
