"""Probes: sizes that matter, sizes that do not, and which layer."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch
from effconv_core import probe, recipe
from effconv_core.engine.race import Result, Trials

spec = importlib.util.spec_from_file_location("signs", Path(__file__).with_name("signs.py"))
signs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(signs)
ALLOWED, Signs, config, cost, net = (
    signs.ALLOWED,
    signs.Signs,
    signs.config,
    signs.cost,
    signs.net,
)


def test_sizes_that_matter_are_told_with_their_layer_and_direction():
    # Neighbours must be compared before the square, so the first size must be above 1.
    found = probe(
        net(sizes=(1, 5)), Signs(), config=config(race_steps=16), searched=["1", "4"], **ALLOWED
    )
    assert found.matters
    assert found.spread > 3 * found.noise
    assert found.best["1"] > 1
    assert found.best_loss < found.original_loss
    assert set(found.layers) == {"1", "4"}


def test_labels_of_chance_are_not_said_to_depend_on_sizes():
    said = []
    for seed in range(8):
        loader = Signs()
        generator = torch.Generator().manual_seed(seed)
        loader.labels = torch.randint(0, 2, loader.labels.shape, generator=generator)
        found = probe(net(), loader, config=config(race_steps=4, seed=seed), repeats=8, **ALLOWED)
        said.append(found.matters)
    assert sum(said) <= 2


def test_a_probe_trains_for_64_steps_unless_a_config_says_how_many(monkeypatch):
    results = itertools.count(1)

    def run(self, plans, **options):
        return [Result(1 + next(results) / 100, 0.5) for _ in plans]

    monkeypatch.setattr(Trials, "run", run)
    assert probe(net(), Signs(), **ALLOWED).steps == 64
    assert probe(net(), Signs(), config=config(race_steps=5), **ALLOWED).steps == 5


def test_a_probe_is_the_same_each_time_and_changes_nothing():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (probe(model, Signs(), config=config(), **ALLOWED) for _ in range(2))
    assert first == second
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert 4 <= first.plans <= 16


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"plans": 3}, "plans is 3"),
        ({"repeats": 1}, "repeats is 1"),
        ({"config": recipe("paper")}, "race_steps"),
        ({"allowed": range(3, 4)}, "1 plans"),
    ],
)
def test_what_shows_no_spread_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        probe(net(), Signs(), **{"config": config(), **ALLOWED, **changes})


@pytest.mark.parametrize("context", [torch.inference_mode, lambda: torch.autocast("cpu")])
def test_where_nothing_is_learned_is_refused(context):
    with context(), pytest.raises(ValueError, match=r"gradients are off|torch\.autocast is on"):
        probe(net(), Signs(), config=config(), **ALLOWED)


def test_a_network_in_float16_is_refused_by_its_parameter():
    with pytest.raises(TypeError, match=r"weight' is torch\.float16"):
        probe(net().half(), Signs(), config=config(), **ALLOWED)


def test_a_long_epoch_is_not_read_to_its_end():
    loader = Signs(batches=400)
    probe(net(), loader, config=config(race_steps=4), plans=4, repeats=2, **ALLOWED)
    assert loader.taken < 400 * 3  # once to count, and once and again for each of three trainings


def test_too_few_batches_are_refused():
    with pytest.raises(ValueError, match="4 batches"):
        probe(net(), Signs(batches=4), config=config(), budget=cost(net()), **ALLOWED)


def test_validation_data_are_what_a_probe_tests_on():
    few, validation = list(Signs())[:2], Signs()
    found = probe(net(), few, validation=validation, config=config(), **ALLOWED)
    validation.labels = 1 - validation.labels
    turned = probe(net(), few, validation=validation, config=config(), **ALLOWED)
    assert found.original_loss < turned.original_loss
