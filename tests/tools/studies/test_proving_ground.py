"""`hatch run bench:proving-ground` and its page."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from effconv_core import RECIPES, apply_plan
from effconv_core.engine.train import TrainConfig
from effconv_data import synthetic
from torch.utils.flop_counter import FlopCounterMode

from tools.presets import demo_network
from tools.studies import proving_ground
from tools.studies.proving_ground import (
    TASKS,
    Task,
    peer_once,
    random_plans,
    search_once,
    train_once,
)


def relative_cost(task, plan):
    """Return how far a plan's parameters are above those of the network's own sizes."""
    return task.searchable().cost(list(plan.values())) / task.budget.amount - 1


def drawn(split, seed, samples):
    return synthetic(4.0, split=split, samples=samples, image_size=16, batch_size=16, seed=seed)


@pytest.fixture
def small(monkeypatch):
    short = replace(RECIPES["bank"], least_steps=0, race_steps=2)
    monkeypatch.setitem(RECIPES, "bank", short)
    train = TrainConfig(1, 16, "adam", 1e-2, 0.0, "cosine", 1.0)
    network = partial(demo_network, 1, 4)
    monkeypatch.setitem(TASKS, "small", Task(drawn, network, 2, train, samples=96))
    return TASKS["small"]


def test_a_search_its_peers_and_a_training_of_each(small):
    found = search_once("small", 100)
    assert found["steps"] == sum(found["evidence"]["spent"].values()) > 0
    others = [peer_once("small", name, 40, 100) for name in ("TPE", "halving")]
    for plan in (row["plan"] for row in (found, *others)):
        assert abs(relative_cost(small, plan)) <= small.config.tolerance
    row = train_once("small", "original", small.original, 100)
    assert row["parameters"] == small.budget.amount
    assert row == {
        **train_once("small", "original", small.original, 100),
        "cpu_seconds": row["cpu_seconds"],
    }


def test_a_search_has_the_validation_data_of_its_task(small, monkeypatch):
    plain = search_once("small", 100)
    assert plain["validation"] is None

    def divide(seed, samples):
        return drawn("train", seed, samples), drawn("test", seed, samples)

    monkeypatch.setitem(TASKS, "small", replace(small, divide=divide))
    row = search_once("small", 100)
    assert row["validation"] == 6
    assert row["evidence"]["original_loss"] != plain["evidence"]["original_loss"]


def test_the_digits_of_one_speaker_are_validation_data():
    if not (Path(os.environ.get("EFFCONV_DATA", "")) / "fsdd").is_dir():
        pytest.skip("needs EFFCONV_DATA with the folder fsdd")
    train, validation = TASKS["spoken-digits"].parts(0)
    whole = TASKS["spoken-digits"].batches("train", 0)
    assert train.samples + validation.samples == whole.samples
    assert len(validation) >= 5
    heard = {bytes(audio.numpy()) for audio in validation._images}
    assert not heard & {bytes(audio.numpy()) for audio in train._images}
    assert torch.equal(next(iter(validation))[1].unique(), torch.arange(10))


def test_random_plans_are_the_same_for_all_seeds_and_cost_the_budget(small):
    plans = small.draw_plans(3, 999)
    assert plans == small.draw_plans(3, 999)
    assert len({tuple(plan.values()) for plan in plans}) == 3
    for plan in plans:
        assert abs(relative_cost(small, plan)) <= small.config.tolerance


def test_a_random_plan_that_has_rows_is_trained_with_other_seeds(small):
    drawn, plan = small.draw_plans(2, proving_ground.RANDOM), dict.fromkeys(small.original, 2)
    rows = [
        {"work": "search", "method": "bank", "seed": 100, "plan": small.original},
        {"work": "training", "method": "random 1", "seed": 99, "plan": plan},
    ]
    assert random_plans(small, 2, rows) == {"random 0": drawn[0], "random 1": plan}
    assert random_plans(small, 2, []) == {"random 0": drawn[0], "random 1": drawn[1]}


def test_plans_of_a_task_may_cost_multiply_accumulates(small, monkeypatch):
    counting = replace(small, counted=(1, 16, 16))
    monkeypatch.setitem(TASKS, "counting", counting)
    assert counting.budget.amount > 10 * small.budget.amount
    found = search_once("counting", 100)
    plans = [found["plan"], peer_once("counting", "TPE", 40, 100)["plan"]]
    plans += counting.draw_plans(3, 999)
    for plan in plans:
        cnn = apply_plan(counting.network(0), plan)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            cnn.eval()(torch.zeros(1, 1, 16, 16))
        counted = counter.get_total_flops() // 2
        assert abs(counted / counting.budget.amount - 1) <= counting.config.tolerance


@pytest.mark.parametrize("task", proving_ground.TASKS)
def test_the_sizes_of_every_task_can_be_searched(task):
    settings = TASKS[task]
    searchable = settings.searchable()
    assert len(searchable.layers) >= 6
    assert settings.original.keys() == set(searchable.layers)
    assert settings.budget.amount > 0
