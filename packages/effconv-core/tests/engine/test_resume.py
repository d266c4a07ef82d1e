"""Checkpoints of a search: whose they are, and what goes on from them."""

import itertools
import os
from dataclasses import replace

import pytest
import torch
from effconv_core import RECIPES, SearchableCNN, recipe, search
from effconv_core.engine.race import Trials
from effconv_core.engine.resume import costs_of_some, identity_of, restored
from effconv_core.io.checkpoint import read_training_state
from torch import nn


def network(channels: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, channels, 1),
        *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
        nn.Conv2d(channels, channels, 3, padding=1),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)),
    )


def batches(seed: int = 0, count: int = 10) -> list:
    generator = torch.Generator().manual_seed(seed)
    labels = [torch.randint(2, (8,), generator=generator) for _ in range(count)]
    return [
        (torch.randn(8, 1, 8, 8, generator=generator) + y[:, None, None, None], y) for y in labels
    ]


def config(**changes):
    return recipe("bank", **{"least_steps": 0, "race_steps": 3, **changes})


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search with validation data, and its checkpoint."""
    searchable = SearchableCNN(network(), config())
    path = tmp_path_factory.mktemp("search") / "search.safetensors"
    plan = search(searchable, batches(), checkpoint=path, validation=batches(1))
    return searchable, path, plan


def test_the_network_of_a_checkpoint_has_its_trained_kernels(searched):
    searchable, path, _ = searched
    again = restored(network(), path)
    assert again.state_dict().keys() == searchable.state_dict().keys()
    for name, value in searchable.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


@pytest.mark.parametrize(
    "other",
    [
        lambda: nn.Sequential(*network()[:4], nn.Flatten(), nn.LazyLinear(2)),
        lambda: nn.Sequential(nn.Identity(), *network()),
        lambda: network(6),
    ],
)
def test_the_checkpoint_of_another_network_is_refused(searched, other):
    with pytest.raises(ValueError, match=r"layers|shape"):
        restored(other(), searched[1])


def test_an_identity_differs_where_the_search_does():
    searchable = SearchableCNN(network(), config())
    same = identity_of(SearchableCNN(network(6), config()), 300)
    assert identity_of(searchable, 300) == same
    others = [
        identity_of(searchable, 301),
        identity_of(searchable, 300, 20),
        identity_of(SearchableCNN(network(), config(seed=1)), 300),
        identity_of(SearchableCNN(network(), config(), allowed=range(1, 8, 2)), 300),
    ]
    assert all(other != same for other in others)


def test_the_costs_of_some_plans_are_those_of_the_networks():
    searchable = SearchableCNN(network(), config(k=2))
    (costs,) = costs_of_some(searchable, 300)
    assert costs == [searchable.cost([size, size]) for size in range(1, 6)]


@pytest.mark.parametrize("validation", [None, batches(1, 8)])
def test_other_validation_data_do_not_go_on_with_it(searched, validation):
    _, path, plan = searched
    given = {"config": config(), "checkpoint": path}
    before = path.read_bytes()
    assert search(network(), batches(), validation=batches(1), **given) == plan
    with pytest.raises(ValueError, match="validation"):
        search(network(), batches(), validation=validation, **given)
    assert path.read_bytes() == before


@pytest.mark.parametrize("in_the_choice", [False, True])
@pytest.mark.parametrize(("finalists", "race_steps"), [(8, 60), (8, 64), (10, 64)])
def test_a_search_that_ended_as_the_recipe_did_goes_on_as_it_ends_now(
    tmp_path, monkeypatch, finalists, race_steps, in_the_choice
):
    monkeypatch.setitem(RECIPES, "bank", replace(RECIPES["bank"], finalists=2, race_steps=1))
    path, former = tmp_path / "s.safetensors", {"finalists": finalists, "race_steps": race_steps}
    steps, first = itertools.count(1), Trials.run

    def stopped(step):
        if next(steps) > len(batches()):  # in the second epoch
            raise KeyboardInterrupt

    def stopped_later(self, plans, **options):
        if options["epoch"]:  # in the second round
            raise KeyboardInterrupt
        return first(self, plans, **{**options, "steps": 1})

    def go_on(on_step=None, **changes):
        given = recipe("bank", least_steps=0, epochs=2, tolerance=0.3, **changes)
        return search(network(), batches(), config=given, checkpoint=path, on_step=on_step)

    with monkeypatch.context() as patch:
        patch.setattr(Trials, "run", stopped_later)
        with pytest.raises(KeyboardInterrupt):
            go_on(None if in_the_choice else stopped, **former)
    before = path.read_bytes()
    begun = read_training_state(path).progress.get("choice", {})
    assert ("round 0" in begun) == in_the_choice
    for other in ({"race_steps": 3}, {"seed": 1}):
        with pytest.raises(ValueError, match="config"):
            go_on(**other)
    assert path.read_bytes() == before
    plan = go_on()
    assert (plan.evidence.plans, plan.evidence.steps) == (2, 1)
    assert go_on() == plan
    path.write_bytes(before)  # who asks for the former numbers gets them
    with monkeypatch.context() as patch:
        patch.setattr(Trials, "run", stopped_later)
        with pytest.raises(KeyboardInterrupt):
            go_on(**former)
    assert len(read_training_state(path).progress["choice"]["proposals"][0]) > 2


def test_a_relative_checkpoint_stays_where_it_was_when_the_search_began(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    search(
        network(),
        batches(),
        config=config(finalists=1, race_steps=0),
        checkpoint="search.safetensors",
        on_step=lambda step: os.chdir(tmp_path / "elsewhere"),
    )
    assert (tmp_path / "search.safetensors").is_file()
    assert not any((tmp_path / "elsewhere").iterdir())
