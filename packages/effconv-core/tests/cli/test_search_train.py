"""The commands `effconv search` and `effconv train`: their options and their networks."""

import dataclasses
import json
import re
import sys

import pytest
import torch
from effconv_core import RECIPES
from effconv_core.cli.found.evaluate import evaluate_command
from effconv_core.cli.search_train import (
    Subject,
    network_of,
    search_command,
    search_defaults,
    take_recipe,
    train_command,
    train_defaults,
)
from effconv_core.cli.specifiers.data import Data
from effconv_core.config import recipe_name
from effconv_core.engine.train import TRAIN_RECIPES


@pytest.mark.parametrize(
    ("words", "recipe", "rest"),
    [
        (["a", "b"], "bank", ["a", "b"]),
        (["a", "--recipe", "paper", "b"], "paper", ["a", "b"]),
        (["--recipe=literal"], "literal", []),
        (["--recipe", "default"], "bank", []),
        (["--rec", "paper"], "bank", ["--rec", "paper"]),
    ],
)
def test_a_recipe_is_taken_out_of_the_words(words, recipe, rest):
    assert take_recipe(words) == (recipe, rest)


def test_the_default_recipe_is_the_callers():
    assert take_recipe([], "paper") == ("paper", [])


def test_an_unknown_recipe_is_refused_by_name():
    with pytest.raises(ValueError, match="'papre'"):
        take_recipe(["--recipe", "papre"])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_sets_search_and_training(name):
    training = TRAIN_RECIPES["resnet" if recipe_name(name) == "bank" else "flexconv"]
    assert search_defaults(name)["search"] == RECIPES[name]
    assert search_defaults(name)["train"] == train_defaults(name)["train"] == training


OWN = """
import torch
from torch import nn


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def maps():
    return nn.Conv2d(3, 4, 3)


def pair():
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    return Pair()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write a module of networks, and enter its folder."""
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def data(shape=(3, 8, 8), classes=5, labels=None):
    first = None if labels is None else (torch.zeros(len(labels), *shape), torch.tensor(labels))
    known = {"image_shape": shape, "num_classes": classes, "first": first}
    names = {field.name for field in dataclasses.fields(Data)}
    others = dict.fromkeys(names - known.keys())
    return Data(**others, **known)


def of(model, **options):
    return Subject(model=model, data="a set", **options)


def test_a_network_is_ready_to_be_trained(own):
    network = network_of(of("own_networks:network"), data(labels=[0, 4]), 0)
    assert network.training
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 5)


def test_a_seed_makes_the_initial_values(own):
    first, again, other = (
        network_of(of("own_networks:network"), data(), seed)[0].weight for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("model", "changes", "named"),
    [
        ("network", {"shape": (1, 8, 8)}, "1 .* 3"),
        ("network", {"classes": 7}, "7"),
        ("network", {"labels": [0, 5]}, "5"),
        ("maps", {}, r"\(1, 4, 6, 6\)"),
        ("pair", {}, "tuple"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(model, changes, named, own):
    with pytest.raises(ValueError, match=named):
        network_of(of(f"own_networks:{model}"), data(**changes), 0)


def test_a_network_by_name_needs_a_number_of_classes(own):
    with pytest.raises(ValueError, match="--num-classes"):
        network_of(of("torchvision:resnet18"), data(classes=None), 0)


@pytest.mark.parametrize("command", [search_command, train_command])
@pytest.mark.parametrize(
    "words",
    [
        ["own_networks:network", "nowhere", "--device=cpu"],
        ["own_networks:network", "nowhere", "--recipe=papre"],
        ["own_networks:network", "nowhere", "--device=gpu"],
        ["own_networks:network", "nowhere", "--device=cpu", "--sync-batchnorm"],
        ["own_networks:network", "nowhere", "--device=cpu", "--name=../out"],
        ["own_networks:network", "nowhere", "--device=cpu", "--seed=-1"],
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(command, words, own, capsys, tmp_path):
    assert command(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


DATA = """
import torch


def loaders(batch_size, seed):
    return [(torch.ones(8, 3, 8, 8), torch.arange(8) % 5)] * 2


def without_test(batch_size, seed):
    return loaders(batch_size, seed), None


def more_classes(batch_size, seed):
    return loaders(batch_size, seed), [(torch.zeros(2, 3, 8, 8), torch.tensor([0, 5]))]


def one_batch_size(batch_size, seed):
    if batch_size != 16:
        raise ValueError(f"batch_size {batch_size}")
    return loaders(batch_size, seed), loaders(batch_size, seed)
"""


@pytest.mark.parametrize("loaders", ["without_test", "more_classes", "one_batch_size"])
def test_loaders_that_would_end_a_run_after_its_search_are_refused_before(
    loaders, own, capsys, tmp_path
):
    (tmp_path / "own_networks.py").write_text(OWN + DATA)
    words = ["own_networks:network", f"own_networks:{loaders}", "--device=cpu"]
    assert search_command([*words, "--batch-size=16", "--train.batch-size=8"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [search_command, train_command])
def test_the_short_help_leaves_settings_out_that_the_long_one_has(command, capsys):
    said = {}
    for word in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as ended:
            command([word])
        assert ended.value.code in (0, None)
        said[word] = capsys.readouterr().out
    assert "--train.weight-decay" not in said["--help"]
    assert "--train.weight-decay" in said["--help-all"]
    assert "--recipe" in said["--help"]


VALIDATED = """
import os

import torch


def part(batches, *, inverted=False):
    generator = torch.Generator().manual_seed(batches)
    labels = torch.arange(8) % 2
    noise = torch.randn(batches, 8, 1, 6, 6, generator=generator)
    images = noise + 3 * labels.view(8, 1, 1, 1)
    return [(batch, 1 - labels if inverted else labels) for batch in images]


def loaders(batch_size, seed):
    return part(12), part(7, inverted=True), part(2)


class Moves(list):
    def __init__(self, batches, first):
        super().__init__(batches)
        self.times = -first

    def __iter__(self):
        self.times += 1
        if self.times > 0:
            os.makedirs("elsewhere", exist_ok=True)
            os.chdir("elsewhere")
        return super().__iter__()


def moving(batch_size, seed):
    train, validation, test = loaders(batch_size, seed)
    return Moves(train, 0), validation, Moves(test, 0)


def moving_late(batch_size, seed):
    train, validation, test = loaders(batch_size, seed)
    return Moves(train, 3), validation, test


def few(batch_size, seed):
    return part(12), part(4), part(2)


class Unsized(torch.utils.data.IterableDataset):  # of no length
    def __iter__(self):
        return iter(part(7))


def talks(batch_size, seed):
    print("two loaders")
    return part(12), part(2)


def unsized(batch_size, seed):
    return part(12), torch.utils.data.DataLoader(Unsized(), batch_size=None), part(2)


def targets(batch_size, seed):
    return part(12), [(images, labels + 2) for images, labels in part(7)], part(2)


def network():
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )
"""


@pytest.fixture
def validated(tmp_path, monkeypatch):
    """Enter a folder with a network and its loaders of training, validation and test."""
    (tmp_path / "own_validated.py").write_text(VALIDATED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_validated", raising=False)
    return ["own_validated:network", "own_validated:{}", "--device=cpu", "--seed=1"]


def test_plans_are_compared_and_trainings_followed_on_the_validation_of_a_function(
    validated, capsys
):
    words = [word.format("loaders") for word in validated]
    words += ["--name=one", "--json", "--batch-size=8", "--train.batch-size=8", "--train.epochs=2"]
    words += ["--search.epochs=2", "--search.least-steps=0", "--search.race-steps=48"]
    words += ["--budget=762"]  # which the original sizes do not meet, so that others are compared
    assert search_command([*words, "--train.lr=0.1"]) == 0
    said = json.loads(capsys.readouterr().out)
    # What is learned is of the training split, so the inverted labels of validation are missed.
    assert said["accuracy"] == 1
    assert said["networks"]["learned"]["val_accuracy"] == 0
    assert said["evidence"]["original_loss"] > 1.5


def test_validation_data_without_a_length_are_read_to_their_end(validated, capsys, tmp_path):
    words = [word.format("unsized") for word in validated]
    words += ["--name=one", "--json", "--batch-size=8", "--search-only", "--budget=762"]
    words += ["--search.epochs=1", "--search.least-steps=0", "--search.race-steps=1"]
    assert search_command(words) == 0
    assert json.loads(capsys.readouterr().out)["evidence"]["pairs"] == 4


def test_what_the_users_code_prints_is_not_within_the_json(validated, capsys):
    words = [word.format("talks") for word in validated]
    options = ["--train.epochs=1", "--train.batch-size=8", "--name=one", "--json"]
    assert train_command([*words, *options]) == 0
    said = capsys.readouterr()
    run = json.loads(said.out)["run"]
    assert "two loaders" in said.err
    assert evaluate_command(["--run", run, "--device=cpu", "--json"]) == 0
    json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", [search_command, train_command])
def test_a_recipe_that_compares_nothing_still_follows_the_validation(command, validated, capsys):
    words = [word.format("loaders") for word in validated]
    words += ["--name=one", "--json", "--recipe=paper", "--train.epochs=1", "--train.batch-size=8"]
    search = ["--batch-size=8", "--search.epochs=1"] if command is search_command else []
    assert command([*words, *search]) == 0
    (outcome,) = json.loads(capsys.readouterr().out)["networks"].values()
    assert outcome["val_accuracy"] == outcome["best_val_accuracy"]
    assert outcome["best_epoch"] == 1


@pytest.mark.parametrize("runs", ["runs", "{}/absolute"])
@pytest.mark.parametrize("loaders", ["moving", "moving_late"])
def test_a_run_stays_where_it_began_whatever_folder_the_loaders_enter(
    loaders, runs, validated, capsys, tmp_path
):
    words, runs = [word.format(loaders) for word in validated], runs.format(tmp_path)
    words += ["--name=one", "--json", "--train.epochs=2", "--train.batch-size=8"]
    assert train_command([*words, f"--runs={runs}"]) == 0
    (made,) = tmp_path.rglob("result.json")
    assert made.parent == tmp_path / runs / "one"
    assert tmp_path / json.loads(capsys.readouterr().out)["run"] == made.parent


@pytest.mark.parametrize(("loaders", "named"), [("few", "4 batch"), ("targets", "2|3")])
def test_validation_data_that_cannot_be_used_are_refused_before_a_run(
    loaders, named, validated, capsys, tmp_path
):
    words = [word.format(loaders) for word in validated]
    assert search_command([*words, "--batch-size=8", "--train.batch-size=8"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(named, line)
    assert not (tmp_path / "runs").exists()
