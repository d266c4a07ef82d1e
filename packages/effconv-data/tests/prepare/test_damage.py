"""Damaged archives end in an error that names the file, and leave nothing behind."""

import gzip
import pickle
import struct

import numpy as np
import pytest
from effconv_data.prepare import prepare
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n"
IDX_IMAGES = struct.pack(">4I", 0x803, 2, 28, 28) + bytes(2 * 784)
IDX_LABELS = struct.pack(">2I", 0x801, 2) + b"\x01\x02"


def images(header, pixels):
    return {"t10k-images-idx3-ubyte": struct.pack(">4I", *header) + bytes(pixels)}


MNIST = {"t10k-images-idx3-ubyte": IDX_IMAGES, "t10k-labels-idx1-ubyte": IDX_LABELS}
CIFAR_BINARY = {"batches.meta.txt": NAMES, "test_batch.bin": bytes(2 * 3073)}
CIFAR_PYTHON = {
    "batches.meta": pickle.dumps({"label_names": NAMES.decode().split()}),
    "test_batch": pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 9]}),
}
STL = {
    "class_names.txt": NAMES,
    "test_X.bin": bytes(2 * 27648),
    "test_y.bin": b"\x01\x0a",
}
IMAGENET = {
    "val_data": pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 1000]}),
}


def cifar_batch(data=None, labels=(0, 9)):
    data = np.zeros((2, 3072), np.uint8) if data is None else data
    return {"test_batch": pickle.dumps({"data": data, "labels": list(labels)})}


def imagenet_batch(**changes):
    batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 1000], **changes}
    return {"val_data": pickle.dumps(batch)}


DAMAGE = [
    ("mnist", MNIST, images((0x801, 2, 28, 28), 1568), r"images.* magic number 0x00000801"),
    ("mnist", MNIST, images((0x803, 2, 32, 32), 2048), r"images.* 32 x 32 pixels"),
    ("mnist", MNIST, images((0x803, 2, 28, 28), 1567), r"images.* 2 items in 1584 bytes"),
    ("mnist", MNIST, images((0x803, 2, 28, 28), 1569), r"images.* 2 items in 1584 bytes"),
    ("mnist", MNIST, images((0x803, 0, 28, 28), 0), r"images.* 0 items"),
    ("mnist", MNIST, images((0x803, 3, 28, 28), 3 * 784), r"2 labels for 3 images"),
    ("mnist", MNIST, images((0x803, 2**32 - 1, 28, 28), 1568), r"promises 4294967295 items"),
    ("mnist", MNIST, {"t10k-images-idx3-ubyte": b"\0\0\x08"}, r"images.* 3 bytes"),
    (
        "mnist",
        MNIST,
        {"t10k-labels-idx1-ubyte": struct.pack(">2I", 0x801, 2) + b"\x01\x0a"},
        r"labels.* sample 1 the label 10; labels run from 0 to 9",
    ),
    ("mnist", MNIST, {"t10k-images-idx3-ubyte.gz": b"no gzip"}, r"cannot be decompressed"),
    (
        "mnist",
        MNIST,
        {"t10k-images-idx3-ubyte.gz": gzip.compress(IDX_IMAGES, mtime=0)[:-9]},
        r"cannot be decompressed",
    ),
    ("cifar10", CIFAR_BINARY, {"test_batch.bin": bytes(6145)}, r"test_batch.bin.* 6145 bytes"),
    ("cifar10", CIFAR_BINARY, {"test_batch.bin": b""}, r"test_batch.bin.* 0 bytes"),
    (
        "cifar10",
        CIFAR_BINARY,
        {"test_batch.bin": bytes(3073) + b"\x0a" + bytes(3072)},
        r"test_batch.bin.* sample 1 the label 10",
    ),
    ("cifar10", CIFAR_BINARY, {"batches.meta.txt": NAMES[9:]}, r"batches.meta.txt.* 10 different"),
    ("cifar10", CIFAR_BINARY, {"batches.meta.txt": NAMES + b"cat\n"}, r"10 different"),
    ("cifar10", CIFAR_PYTHON, {"batches.meta": pickle.dumps([1])}, r"batches.meta.* 10 different"),
    ("cifar10", CIFAR_PYTHON, {"batches.meta": b"rubbish"}, r"batches.meta.* not read as a pickle"),
    ("cifar10", CIFAR_PYTHON, cifar_batch(labels=[0]), r"test_batch.* 1 labels for 2 images"),
    ("cifar10", CIFAR_PYTHON, cifar_batch(labels=[0, 10]), r"test_batch.* the label 10;"),
    ("cifar10", CIFAR_PYTHON, cifar_batch(labels=[-1, 1]), r"test_batch.* the label -1;"),
    ("cifar10", CIFAR_PYTHON, cifar_batch(labels=[0, 2**70]), r"the label 11805916207174113"),
    ("cifar10", CIFAR_PYTHON, cifar_batch(labels=[0, 1.5]), r"test_batch.* not rows of integers"),
    ("cifar10", CIFAR_PYTHON, cifar_batch(labels=[0, [1]]), r"test_batch.* not rows of integers"),
    ("cifar10", CIFAR_PYTHON, cifar_batch(np.zeros((2, 784), np.uint8)), r"shape \(2, 784\)"),
    ("cifar10", CIFAR_PYTHON, cifar_batch(np.zeros((2, 3072))), r"type float64"),
    ("cifar10", CIFAR_PYTHON, cifar_batch([0]), r"not a dictionary with an array 'data'"),
    ("cifar10", CIFAR_PYTHON, {"test_batch": pickle.dumps({})}, r"not a dictionary with an array"),
    ("cifar10", {}, {"cifar-10-python.tar.gz": b"no tar"}, r"python.tar.gz cannot be read"),
    ("stl10", STL, {"test_X.bin": bytes(2 * 27648 - 1)}, r"test_X.bin.* 55295 bytes"),
    ("stl10", STL, {"test_y.bin": b"\x01"}, r"test_y.bin.* 1 labels for 2 images"),
    ("stl10", STL, {"test_y.bin": b"\x01\x00"}, r"test_y.bin.* the label 0; labels run from 1"),
    ("stl10", STL, {"test_y.bin": b"\x0b\x01"}, r"test_y.bin.* the label 11;"),
    ("stl10", STL, {"class_names.txt": b"cat\ndog\n"}, r"class_names.txt.* 10 different"),
    (
        "imagenet32",
        IMAGENET,
        imagenet_batch(labels=[0, 1]),
        r"val_data.* the label 0; .* 1 to 1000",
    ),
    ("imagenet32", IMAGENET, imagenet_batch(labels=[1, 1001]), r"val_data.* the label 1001;"),
    ("imagenet32", IMAGENET, imagenet_batch(labels=[1]), r"val_data.* 1 labels for 2 images"),
    ("imagenet32", IMAGENET, imagenet_batch(labels=None), r"val_data.* not rows of integers"),
    (
        "imagenet32",
        IMAGENET,
        imagenet_batch(data=np.zeros((2, 768), np.uint8)),
        r"val_data.* \(2, 768\); images of 32 x 32 .* check the image size",
    ),
    ("imagenet32", IMAGENET, imagenet_batch(data="text"), r"val_data.* not rows of bytes"),
    ("imagenet32", IMAGENET, {"val_data": pickle.dumps([])}, r"val_data has no 'data'"),
    ("imagenet32", IMAGENET, {"val_data.npz": b"PK\x03\x04 rubbish"}, r"npz cannot be read"),
    ("imagenet32", IMAGENET, {"val_data.npz": pickle.dumps(1)}, r"npz cannot be read"),
    ("imagenet32", IMAGENET, {"map_clsloc.txt": b"n1 1 kit_fox\n"}, r"map_clsloc.txt does not"),
]


@pytest.mark.parametrize("name", ["mnist", "cifar10", "stl10", "imagenet32"])
def test_what_is_damaged_below_is_good(name, tmp_path):
    goods = {"mnist": [MNIST], "stl10": [STL], "imagenet32": [IMAGENET]}
    for number, good in enumerate(goods.get(name, [CIFAR_BINARY, CIFAR_PYTHON])):
        source = tmp_path / str(number)
        source.mkdir()
        for file, data in good.items():
            (source / file).write_bytes(data)
        made = prepare(name, source, out=source / "out", splits=["test"], workers=1)
        assert made.samples == {"test": 2}


@pytest.mark.parametrize(
    ("name", "good", "bad", "message"),
    [pytest.param(*case, id=f"{case[0]}-{case[3]}") for case in DAMAGE],
)
def test_damage_is_named(name, good, bad, message, tmp_path):
    for file, data in {**good, **bad}.items():
        (tmp_path / file).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        prepare(name, tmp_path, out=tmp_path / "out", splits=["test"], checksum=False, workers=1)
    assert not (tmp_path / "out").exists()


@settings(deadline=None, max_examples=30)
@given(length=st.integers(0, len(IDX_IMAGES) - 1))
def test_an_idx_file_cut_anywhere_is_refused(tmp_path_factory, length):
    source = tmp_path_factory.mktemp("cut")
    (source / "t10k-images-idx3-ubyte").write_bytes(IDX_IMAGES[:length])
    (source / "t10k-labels-idx1-ubyte").write_bytes(IDX_LABELS)
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte has .*get it again"):
        prepare("mnist", source, out=source / "out", splits=["test"], workers=1)
    assert not (source / "out").exists()


def test_npz_with_pickled_objects_is_refused(tmp_path):
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return open, (str(canary), "w")

    np.savez(tmp_path / "val_data.npz", data=np.array([Evil()], dtype=object), labels=[1])
    with pytest.raises(ValueError, match=r"npz cannot be read .*allow_pickle"):
        prepare("imagenet32", tmp_path, out=tmp_path / "out", splits=["test"])
    assert not canary.exists()
    np.load(tmp_path / "val_data.npz", allow_pickle=True)["data"]
    assert canary.exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar100", {}, "set 'cifar100' is unknown; pass one of mnist, cifar10"),
        ("mnist", {"image_size": 32}, "image_size is 32, but mnist has one size"),
        ("imagenet32", {"image_size": 8}, "image_size is 8; ImageNet comes in 16, 32 or 64"),
        ("mnist", {"splits": ["val"]}, r"splits are \['val'\]; pass a list of some of train, test"),
        ("mnist", {"splits": "test"}, "splits are 'test'; pass a list"),
        ("mnist", {"splits": []}, r"splits are \[\]; pass a list"),
        ("mnist", {"seed": -1}, "seed is -1"),
        ("mnist", {"workers": 0}, "workers is 0"),
        ("mnist", {"shard_samples": 0}, "shard_samples is 0"),
        ("mnist", {"downloads": "x"}, "both source .* and downloads x"),
    ],
)
def test_options_are_checked_first(name, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        prepare(name, tmp_path, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        prepare("mnist", tmp_path / "nowhere", out=tmp_path / "out")


def test_imagenet_says_where_it_is_to_be_had(tmp_path):
    with pytest.raises(ValueError, match=r"https://image-net.org/download-images.php .*Download d"):
        prepare("imagenet32", out=tmp_path / "out")
