"""Models, data and commands that an installed package brings to the command line."""

import sys

import pytest
import torch
from effconv_core.cli.app import run
from effconv_core.cli.completion import words
from effconv_core.cli.plugins import brought, loaded
from effconv_core.cli.specifiers.data import make_data
from effconv_core.cli.specifiers.model import make_model

PACKAGE = """
from dataclasses import dataclass
from types import SimpleNamespace
import torch

def create(name, *, num_classes=10, in_channels=3):
    assert name == "small"
    return torch.nn.Conv2d(in_channels, num_classes, 3)

def load(place, *, split, batch_size, device, seed, rank, world_size):
    return SimpleNamespace(
        name=f"{place} {split} {batch_size}", image_shape=(1, 5, 5), num_classes=4, samples=12
    )

@dataclass
class Command:
    number: int = 1

def command(words):
    print(*words)
    return 7
"""
ENTRIES = """
[effconv.models]
mine = brought_along:create
[effconv.data]
mine = brought_along:load
[effconv.commands]
tell = brought_along:command
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with entry points of all three groups; give its folder."""
    installed = tmp_path / "brought_along-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: brought-along\nVersion: 1.0\n"
    )
    (installed / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "brought_along.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("brought_along", None)


def test_a_model_by_a_word_that_a_package_brings(package):
    model = make_model("mine:small", num_classes=4, channels=1, seed=0)
    assert model.weight.shape == (4, 1, 3, 3)
    assert torch.equal(
        model.weight, make_model("mine:small", num_classes=4, channels=1, seed=0).weight
    )


def test_data_by_a_word_that_a_package_brings(package):
    data = make_data("mine:somewhere", batch_size=3, device="cpu")
    assert (data.image_shape, data.num_classes, data.samples) == ((1, 5, 5), 4, 12)
    assert data.train(3).name == "somewhere train 3"
    assert data.test().name == "somewhere test 500"


def test_a_command_that_a_package_brings_and_its_completion(package, capsys):
    assert run(["tell", "a", "b"]) == 7
    assert capsys.readouterr().out == "a b\n"
    assert "tell" in str(words())
    assert run(["tall"]) == 2
    assert "tell" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["mine:small", "effconv:resnet18"])
def test_a_model_whose_package_is_gone(package, monkeypatch, word):
    (package / "brought_along.py").unlink()
    entry = brought("effconv.models")["mine"]
    assert loaded(entry) is None
    monkeypatch.setattr("effconv_core.cli.specifiers.model.brought", lambda group: {"mine": entry})
    with pytest.raises(ValueError, match=word):
        make_model(word)


def test_data_and_the_command_data_where_no_package_brings_them(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("effconv_core.cli.app.brought", lambda group: {})
    monkeypatch.setattr("effconv_core.cli.specifiers.data.brought", lambda group: {})
    with pytest.raises(ValueError, match="pip install --upgrade effconv-data"):
        make_data("photos", batch_size=3, device="cpu")
    assert run(["data", "show"]) == 2
    assert "pip install --upgrade effconv-data" in capsys.readouterr().err


def test_what_a_package_lacks_is_told_as_it_is(package):
    (package / "brought_along.py").write_text("import not_there_either\n")
    with pytest.raises(ModuleNotFoundError, match="not_there_either"):
        loaded(brought("effconv.commands")["tell"])


def test_of_two_of_a_name_the_first_path_wins(package, tmp_path, monkeypatch):
    other = tmp_path / "later" / "other-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[effconv.models]\nmine = other:create\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(other.parent)])
    assert brought("effconv.models")["mine"].value == "brought_along:create"
