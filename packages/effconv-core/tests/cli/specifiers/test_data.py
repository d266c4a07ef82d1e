"""The images that a DATA specifier names."""

import os
import sys
from pathlib import Path

import pytest
from effconv_core.cli.specifiers.data import make_data, make_test


@pytest.mark.parametrize(
    "scheme", ["pipe:touch {}", "pipe:touch {} #.tar", "sftp://{}", "gs://{}.tar"]
)
def test_the_word_for_the_data_runs_no_program(scheme, tmp_path, monkeypatch):
    for name in ("curl", "gsutil"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("EFFCONV_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="allow_commands"):
        make_data(scheme.format(tmp_path / "ran"), batch_size=1, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("root", ["", "sets"])
@pytest.mark.parametrize(
    ("name", "kind"), [("cifar10", "cifar10"), ("photos", "folder --source IMAGES")]
)
def test_a_set_that_is_missing_is_refused_with_the_command_that_makes_it(
    name, kind, root, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EFFCONV_DATA", root)
    place = Path(root) / name
    with pytest.raises(FileNotFoundError, match=f"`effconv data prepare {kind} --out {place}`"):
        make_data(name, batch_size=4, device="cpu")


def test_the_test_of_a_small_set_of_a_function_needs_no_full_batch_of_training(
    tmp_path, monkeypatch
):
    (tmp_path / "own_small.py").write_text(
        "import torch\n"
        "from torch.utils.data import DataLoader, TensorDataset\n\n\n"
        "def few(batch_size=8, seed=0):\n"
        "    data = TensorDataset(torch.zeros(20, 1, 4, 4), torch.arange(20) % 2)\n"
        "    test = DataLoader(data, batch_size)\n"
        "    return DataLoader(data, batch_size, drop_last=True), test\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    labels = [labels for _, labels in make_test("own_small:few", batch_size=500)]
    assert sum(map(len, labels)) == 20


@pytest.mark.parametrize("loaders", [2, 3])
def test_a_function_gives_training_and_test_and_may_give_validation_between(
    loaders, tmp_path, monkeypatch
):
    (tmp_path / "own_parts.py").write_text(
        "import torch\n\n\n"
        "def parts(batch_size, seed):\n"
        "    def part(value):\n"
        "        images = torch.full((batch_size, 1, 4, 4), value)\n"
        "        return [(images, torch.zeros(batch_size))] * (12 // batch_size)\n\n"
        f"    return [part(float(number)) for number in range({loaders})]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    data = make_data("own_parts:parts", batch_size=2, device="cpu")

    def first(loader):
        images = loader[0][0]
        return images.shape[0], images.unique().item()

    assert first(data.train(2)) == (2, 0)
    assert first(data.train(3)) == (3, 0)
    assert first(data.test()) == (2, loaders - 1)
    if loaders == 2:
        assert data.val is None
        assert data.comparison(2) is None
    else:
        assert first(data.val(2)) == first(data.comparison(2)) == (2, 1)
        with pytest.raises(ValueError, match=r"gives 4 batch.* at least 5"):
            data.comparison(3)
    assert first(make_test("own_parts:parts", batch_size=5)) == (5, loaders - 1)


OWN = """
import random

import numpy as np
import torch

NUMBERS = torch.arange(24.0)


def drawn(batch_size, seed):
    orders = torch.randperm(24), np.random.permutation(24), random.sample(range(24), 24)
    part = [NUMBERS[torch.as_tensor(order)].view(4, 6, 1, 1) for order in orders]
    return [[(images, torch.zeros(len(images))) for images in each] for each in part]


def named_otherwise(bs, seed):
    return drawn(bs, seed)


def fails(batch_size, seed):
    return {}["photos"]


def breaks(batch_size, seed):
    def loader():
        yield {}["photos"]

    class Loader:
        __len__, __iter__ = lambda self: 3, lambda self: loader()

    return Loader(), drawn(batch_size, seed)[0]


def without_validation(batch_size, seed):
    train, _, test = drawn(batch_size, seed)
    return train, None, test
"""


@pytest.fixture
def own_drawn(tmp_path, monkeypatch):
    (tmp_path / "own_drawn.py").write_text(OWN)
    (tmp_path / "own_wrong.py").write_text("def loaders(:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own_drawn", "own_wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_function_that_draws_its_parts_draws_the_same_for_each_batch_size(own_drawn):
    def parts(data, size):
        loaders = data.train(size), data.val(size), data.test()
        return [images.flatten().tolist() for loader in loaders for images, _ in loader]

    data = make_data("own_drawn:drawn", batch_size=2, device="cpu", seed=5)
    first = parts(data, 2)
    assert parts(data, 3) == parts(data, 2) == first
    again = make_test("own_drawn:drawn", batch_size=500, seed=5)
    assert [images.flatten().tolist() for images, _ in again] == first[-4:]
    other = make_data("own_drawn:drawn", batch_size=2, device="cpu", seed=6)
    assert not any(ours == theirs for ours, theirs in zip(parts(other, 2), first, strict=True))


@pytest.mark.parametrize(
    ("function", "named"),
    [
        ("own_drawn:named_otherwise", "batch_size"),
        ("own_drawn:fails", "KeyError: 'photos'"),
        ("own_drawn:breaks", "training.*KeyError: 'photos'"),
        ("own_drawn:without_validation", "validation.*None"),
        ("own_drawn:NUMBERS", "not callable"),
        ("own_drawn:nothing", "nothing"),
        ("own_wrong:loaders", "SyntaxError"),
    ],
)
def test_a_function_that_fails_is_named(function, named, own_drawn):
    with pytest.raises((TypeError, ValueError), match=f"{function}.*{named}"):
        make_data(function, batch_size=2, device="cpu")


def test_a_split_is_of_sets(own_drawn):
    with pytest.raises(ValueError, match="'val'"):
        make_test("own_drawn:drawn", split="val", batch_size=2)
