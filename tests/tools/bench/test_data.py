"""The comparison of loaders: what each side reads, and what is counted."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from tools.bench.data import DataOptions, time_epochs, unpack


def jpeg(number):
    out = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def root(tmp_path):
    """Give a folder with two shards of a set in the layout of CIFAR-10's."""
    (tmp_path / "cifar10").mkdir()
    for shard in range(2):
        path = tmp_path / "cifar10" / f"train-0000{shard}.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for number in range(3):
                for kind, data in (("jpg", jpeg(number)), ("cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(f"{number:06d}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return tmp_path


def test_a_folder_of_images_has_each_image_below_its_label(root, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    unpack(root, pictures)
    counts = {place.name: len(list(place.iterdir())) for place in pictures.iterdir()}
    assert counts == {"0": 4, "1": 2}
    for path in (pictures / "1").iterdir():
        assert np.asarray(Image.open(path)).mean() == pytest.approx(1, abs=1)


def test_images_are_counted_in_every_epoch_of_every_side():
    labels, done = torch.zeros(4), {"a": 0, "b": 0}

    def epoch(name, batches):
        def begin():
            done[name] += 1
            return [(None, labels)] * batches

        return begin

    sides = {"a": epoch("a", 2), "b": epoch("b", 3)}
    rates = time_epochs(sides, 2, Console(file=io.StringIO()))
    assert {name: len(values) for name, values in rates.items()} == {"a": 2, "b": 2}
    assert all(value > 0 for values in rates.values() for value in values)
    assert min(done.values()) >= 2


def test_the_default_is_the_form_of_training():
    assert (DataOptions().form, DataOptions().out) == ("train", None)
