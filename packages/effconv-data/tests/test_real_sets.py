"""CIFAR-10 and MNIST as they lie in $EFFCONV_DATA."""

import gzip
from collections import Counter

import numpy as np
import pytest
import torch
from effconv_data import load, read_split
from effconv_data.shards.contact_sheet import draw_sheet
from effconv_data.shards.index import read_index
from effconv_data.shards.pixel_statistics import pixel_statistics

# Of the MNIST paper's page: samples of the digits 0 to 9.
MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def folder(real_data, name):
    if not (real_data / name / "index.json").is_file():
        pytest.skip(f"{real_data / name} has no index.json")
    return real_data / name


@pytest.fixture(scope="module")
def mnist_test(real_data):
    return read_split(folder(real_data, "mnist"), "test")


def test_cifar10_test_split(real_data):
    images, labels, classes = read_split(folder(real_data, "cifar10"), "test")
    assert images.shape == (10000, 3, 32, 32)
    assert torch.bincount(labels).tolist() == [1000] * 10
    assert classes[0] == "airplane"
    assert classes[9] == "truck"


@pytest.mark.long
def test_cifar10_train_split(real_data):
    images, labels, _ = read_split(folder(real_data, "cifar10"), "train")
    assert images.shape == (50000, 3, 32, 32)
    assert torch.bincount(labels).tolist() == [5000] * 10
    mean, std = pixel_statistics(images)
    # The published statistics are of the official pixels; JPEG moves the spread a little.
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=1e-3)
    assert std == pytest.approx((0.2470, 0.2435, 0.2616), abs=3e-3)


def test_mnist_test_split(mnist_test):
    images, labels, classes = mnist_test
    assert images.shape == (10000, 1, 28, 28)
    assert torch.bincount(labels).tolist() == MNIST_TEST
    assert classes == tuple("0123456789")


@pytest.mark.long
def test_mnist_train_split(real_data):
    images, labels, _ = read_split(folder(real_data, "mnist"), "train")
    assert images.shape == (60000, 1, 28, 28)
    assert torch.bincount(labels).tolist() == MNIST_TRAIN
    mean, std = pixel_statistics(images)
    # The published values have four digits.
    assert mean == pytest.approx((0.1307,), abs=5e-5)
    assert std == pytest.approx((0.3081,), abs=5e-5)


def test_mnist_test_split_has_the_official_pixels_and_labels(real_data, mnist_test):
    archives = real_data / "archives"
    paths = [archives / f"t10k-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"{archives} does not hold the official test archives")
    pixels, digits = (gzip.decompress(path.read_bytes()) for path in paths)
    pixels = np.frombuffer(pixels, np.uint8, offset=16).reshape(10000, 784)
    digits = np.frombuffer(digits, np.uint8, offset=8)
    official = Counter(zip((row.tobytes() for row in pixels), digits.tolist(), strict=True))
    rows = mnist_test.images.flatten(1).numpy()
    found = Counter(zip((row.tobytes() for row in rows), mnist_test.labels.tolist(), strict=True))
    assert found == official


def test_load_gives_normalised_batches_of_cifar10(real_data):
    folder(real_data, "cifar10")
    batches = load("cifar10", root=real_data, batch_size=100, limit=5000)
    means = torch.stack([images.mean((0, 2, 3)) for images, _ in batches])
    assert len(batches) == 50
    # The crop pads with black, which takes some 0.1 from the mean 0.
    assert means.mean(0).abs().max() < 0.4
    plain = load("cifar10", split="test", root=real_data, batch_size=1000, limit=5000)
    images = torch.cat([x for x, _ in plain])
    assert images.mean((0, 2, 3)).abs().max() < 0.05
    assert (images.std((0, 2, 3)) - 1).abs().max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("split", [pytest.param("train", marks=pytest.mark.long), "test"])
def test_mnist_streams_as_it_lies_in_memory(real_data, split):
    folder(real_data, "mnist")
    options = {"split": split, "root": real_data, "batch_size": 500, "normalized": False}
    streamed = load("mnist", resident=False, workers=2, **options)
    resident = load("mnist", resident=True, **options)
    labels = []
    for (a, b), (c, d) in zip(streamed, resident, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
        labels.append(b)
    published = MNIST_TRAIN if split == "train" else MNIST_TEST
    assert torch.bincount(torch.cat(labels)).tolist() == published


def test_the_sheet_of_real_pictures_has_every_class(real_data):
    index = read_index(folder(real_data, "cifar10"))
    sheet = np.asarray(draw_sheet(index, "test", columns=3))
    assert sheet.shape == (10 * 68, 160 + 3 * 68, 3)
    for row in range(10):
        for column in range(3):
            place = sheet[row * 68 + 2 :, 160 + column * 68 :][:64, :64]
            assert place.std() > 1  # a picture, not white paper
