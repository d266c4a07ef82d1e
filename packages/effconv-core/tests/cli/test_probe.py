"""The command `effconv probe`."""

import json
import sys

import pytest
from effconv_core.cli.probe import probe_command, sentences
from effconv_core.engine.probe import Probe

OWN = """
import torch
from torch import nn


def network(classes=2):
    return nn.Sequential(
        nn.Conv2d(1, 2, 1),
        *(nn.Conv2d(2, 2, 3, padding=1) for _ in range(4)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, classes),
    )


class Batches(list):
    image_shape, num_classes = (1, 8, 8), 2


def batches(batch_size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(10, 8, 1, 8, 8, generator=generator)
    made = Batches((batch, torch.arange(8) % 2) for batch in images)
    return made, made


def validated(batch_size=8, seed=0):
    print("three loaders")
    made, test = batches(batch_size, seed)
    return made, [(images, 1 - labels) for images, labels in made], test
"""
WORDS = ["own_probe:network", "own_probe:batches", "--device=cpu", "--plans=4", "--steps=2"]
WORDS += ["--batch-size=8"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Enter a folder with a network and its data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_probe", raising=False)
    (tmp_path / "own_probe.py").write_text(OWN)
    return tmp_path


def test_plans_are_compared_on_the_validation_of_a_function(here, capsys):
    losses = {}
    for loaders in ("batches", "validated"):
        words = [WORDS[0], f"own_probe:{loaders}", *WORDS[2:], "--steps=40", "--json"]
        assert probe_command(words) == 0
        losses[loaders] = json.loads(capsys.readouterr().out)["original_loss"]
    assert losses["validated"] > losses["batches"]  # its labels are inverted


def test_it_prints_what_a_probe_finds_and_writes_nothing(here, capsys):
    assert probe_command([*WORDS, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == Probe.__dataclass_fields__.keys()
    assert (found["plans"], found["steps"]) == (4, 2)
    assert set(found["layers"]) == {"1", "2", "3", "4"}
    assert probe_command(WORDS) == 0
    out = capsys.readouterr().out
    assert f"{found['spread']:.3f}" in out
    assert [path.name for path in here.iterdir() if path.name != "__pycache__"] == ["own_probe.py"]


SMALL = """
from torch.utils.data import DataLoader, TensorDataset


def few(batch_size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = TensorDataset(torch.randn(80, 1, 8, 8, generator=generator), torch.arange(80) % 2)
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True, generator=generator)
    return loader, loader
"""


def test_a_small_set_gets_a_batch_size_that_fits(here, capsys):
    (here / "own_probe.py").write_text(OWN + SMALL)
    words = [word for word in WORDS if not word.startswith("--batch")]
    words[words.index("own_probe:batches")] = "own_probe:few"
    assert probe_command(words) == 0
    assert "80" in capsys.readouterr().out.splitlines()[0]
    assert probe_command([*words, "--batch-size=40"]) == 2  # two batches, one is held out


@pytest.mark.parametrize(
    ("word", "named"), [("--device=gpu", "'gpu'"), ("--plans=1", "1"), ("--budget=1", "1")]
)
def test_a_mistake_is_one_sentence(word, named, here, capsys):
    assert probe_command([*WORDS, word]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert len(error.splitlines()) == 1


def found(**changes):
    values = {
        "matters": True,
        "spread": 0.25,
        "noise": 0.125,
        "original_loss": 1.5,
        "best_loss": 1.375,
        "best": {"a": 3, "b": 7},
        "layers": {"a": 0.8, "b": -0.9},
        "certain": ("a", "b"),
        "plans": 16,
        "repeats": 5,
        "steps": 64,
    }
    return Probe(**{**values, **changes})


def test_layers_that_are_certain_are_told_with_their_direction():
    text = " ".join(sentences(found()))
    assert "a (smaller" in text
    assert "b (larger" in text
    for number in ("0.250", "0.125", "1.500", "1.375", "16", "64"):
        assert number in text
    assert "(smaller" not in " ".join(sentences(found(certain=())))
    assert sentences(found())[0] != sentences(found(matters=False))[0]
