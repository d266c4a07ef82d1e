"""Small sets of shards, built byte for byte."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from effconv_data import load
from PIL import Image


def encode_image(pixels, format="PNG"):
    """(H, W) or (H, W, 3) uint8 -> the bytes of an image file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=format)
    return out.getvalue()


def grey_or_rgb(pixels):
    """(H, W, C) -> what Pillow takes."""
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def tar(members):
    """[(name, bytes)] -> the bytes of a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


class SmallSet:
    """A folder of shards: change `members`, `index` or the files, then read it."""

    def __init__(self, folder, shards=None, classes=("cat", "dog", "eel"), shape=(6, 5, 3)):
        self.folder = folder
        self.classes = list(classes)
        self.shards = shards or {"train": [4, 3], "test": [2]}
        random = np.random.default_rng(0)
        self.pixels, self.labels, self.members = {}, {}, {}
        for split, counts in self.shards.items():
            total = sum(counts)
            self.pixels[split] = random.integers(256, size=(total, *shape), dtype=np.uint8)
            self.labels[split] = np.arange(total) % len(self.classes)
            start = 0
            for shard, count in enumerate(counts):
                self.members[f"{split}-{shard:05d}.tar.gz"] = [
                    member
                    for i in range(start, start + count)
                    for member in (
                        (f"{split}-{i:06d}.png", encode_image(grey_or_rgb(self.pixels[split][i]))),
                        (f"{split}-{i:06d}.cls", str(self.labels[split][i]).encode()),
                    )
                ]
                start += count
        self.index = {
            "classes": self.classes,
            "splits": {
                split: {
                    "samples": sum(counts),
                    "shards": [
                        {"file": f"{split}-{shard:05d}.tar.gz", "samples": count}
                        for shard, count in enumerate(counts)
                    ],
                }
                for split, counts in self.shards.items()
            },
        }

    def write(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, members in self.members.items():
            data = tar(members)
            (self.folder / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        (self.folder / "index.json").write_text(json.dumps(self.index))
        return self.folder

    def sign(self):
        """Put the sha256 of the written shards into the index."""
        for split in self.index["splits"].values():
            for row in split["shards"]:
                data = (self.folder / row["file"]).read_bytes()
                row["sha256"] = hashlib.sha256(data).hexdigest()
        (self.folder / "index.json").write_text(json.dumps(self.index))


@pytest.fixture
def encode():
    return encode_image


@pytest.fixture
def small_set(tmp_path):
    def make(name="small", **arguments):
        return SmallSet(tmp_path / name, **arguments)

    return make


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """A folder of sets of several shard layouts, images (1, 3, 4)."""
    root = tmp_path_factory.mktemp("sets")
    for name, train in {"one": [23], "even": [6, 6, 6, 6], "uneven": [1, 11, 2, 7, 5]}.items():
        SmallSet(root / name, shards={"train": train, "test": [3, 4]}, shape=(3, 4, 1)).write()
    return root


@pytest.fixture(scope="session")
def streamed():
    """`load` of a set of `sets`, streamed unless told otherwise."""

    def load_streamed(root, name="uneven", **options):
        options = {"batch_size": 4, "resident": False, "workers": 0, **options}
        return load(name, root=root, **options)

    return load_streamed


@pytest.fixture(scope="session")
def same():
    """Assert that two rows of batches are equal bit for bit."""

    def check(left, right):
        left, right = list(left), list(right)
        assert len(left) == len(right)
        for (a, b), (c, d) in zip(left, right):
            assert torch.equal(a, c)
            assert torch.equal(b, d)

    return check


@pytest.fixture(scope="session")
def real_data():
    """The folder of the real sets; the test is skipped where there is none."""
    root = os.environ.get("EFFCONV_DATA")
    if not root:
        pytest.skip("EFFCONV_DATA is not set")
    if not Path(root).is_dir():
        pytest.skip(f"EFFCONV_DATA is {root}, which is no folder")
    return Path(root)
