"""The settings of named searches, and the networks and data of the demo."""

import tarfile

import pytest
import torch
from effconv_core import recipe
from effconv_core.engine.train import TRAIN_RECIPES

from tools.presets import (
    PAPER_SETS,
    SEQUENCES,
    augments,
    check_set,
    data_note,
    demo_network,
    is_augmented,
    make_batches,
    make_network,
    preset,
)


def test_found_cnns_are_trained_as_in_the_papers():
    assert preset("cifar10", "paper").train == TRAIN_RECIPES["flexconv"]
    assert preset("cifar10", "bank").train == TRAIN_RECIPES["resnet"]
    assert preset("cifar10", "default") == preset("cifar10", "bank")
    assert preset("imagenet32", "paper").train.batch_size == 2048
    assert preset("imagenet32", "paper").search.epochs == 5


@pytest.mark.parametrize("data", ["demo", *PAPER_SETS, *SEQUENCES])
@pytest.mark.parametrize("name", ["bank", "paper", "literal"])
def test_every_set_has_settings_for_every_recipe(data, name):
    found = preset(data, name)
    assert found.search.kernel_form == recipe(name).kernel_form
    assert found.budget > 0
    assert found.batch_size > 0


def test_images_are_augmented_as_the_sets_usually_are():
    assert {data for data in ("demo", *PAPER_SETS, *SEQUENCES) if augments(data)} == {
        "demo",
        "cifar10",
        "imagenet32",
    }
    assert is_augmented("mnist", "bank")
    assert not is_augmented("mnist", "paper")
    assert not any(is_augmented(data, "bank") for data in SEQUENCES)


def test_the_demos_budget_is_the_parameter_count_with_sizes_3():
    network = demo_network(1, 4, torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in network.parameters()) == preset("demo", "bank").budget
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 4)


def test_a_seed_makes_the_demos_network():
    batches = make_batches("demo", "test", scale=6, limit=16, batch_size=8, seed=0)
    assert sum(len(labels) for _, labels in batches) == 16
    first, again, other = (make_network("demo", batches, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["see.weight"], other["see.weight"])


def test_a_missing_set_is_refused_with_its_name_and_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFCONV_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "imagenet32")):
        check_set("imagenet32")
    monkeypatch.delenv("EFFCONV_DATA")
    with pytest.raises(FileNotFoundError, match="EFFCONV_DATA"):
        check_set("mnist")
    monkeypatch.setenv("EFFCONV_DATA", "http://localhost/sets")
    check_set("mnist")


def test_a_note_says_whether_pictures_were_compressed_with_loss(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFCONV_DATA", str(tmp_path))
    notes = {}
    for data, kind in (("mnist", "png"), ("cifar10", "jpg")):
        (tmp_path / data).mkdir()
        write_shard(tmp_path / data / "train-000000.tar", f"0.{kind}")
        notes[data] = data_note(data)
    assert "lossless" in notes["mnist"]
    assert "JPEG" in notes["cifar10"]
    assert notes["mnist"] in data_note("smnist")
    assert data_note("demo")


def write_shard(path, name):
    (path.parent / name).write_bytes(b"picture")
    with tarfile.open(path, "w") as shard:
        shard.add(path.parent / name, arcname=name)
