"""The comparison of fresh and warm starts, and what the page says of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from effconv_core import SearchableCNN, apply_plan, recipe, search
from effconv_core.training import evaluate, train
from effconv_data import synthetic
from effconv_models import CifarResNet

from tools import warm_start
from tools.carry_over import Autocast
from tools.jobs import read_rows

ROOT = Path(__file__).parent.parent


def row(name, seed, fresh, warm):
    last = warm_start.SHOWN[-1]
    return {
        "recipe": name,
        "seed": seed,
        "fresh": [0.1] + [fresh] * last,
        "warm": [0.3] + [warm] * last,
    }


def test_the_summary_by_hand():
    rows = [row("paper", 1, 0.5, 0.625), row("paper", 0, 0.25, 0.25)]
    fresh, warm, more = warm_start.summary(rows)
    assert fresh == ["`paper`", "fresh", "10.00", *["37.50"] * 4, ""]
    assert warm == ["`paper`", "warm", "30.00", *["43.75"] * 4, ""]
    assert more == ["`paper`", "warm - fresh", "+20.00", *["+6.25"] * 4, "+0.00  +12.50"]


def pictures(split, seed):
    return synthetic(2.5, split=split, samples=128, image_size=16, batch_size=64, seed=seed)


def network(seed):
    return CifarResNet(8, in_channels=1, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "paper"])
def test_one_plan_is_trained_from_both_starts(monkeypatch, name):
    changes = {"pictures": pictures, "network": network, "data_note": lambda _: "drawn"}
    for attribute, value in changes.items():
        monkeypatch.setattr(warm_start, attribute, value)
    trained = []
    monkeypatch.setattr(warm_start, "train_from", lambda *given: trained.append(given) or [0.5])
    found = warm_start.compare(name, 3)
    (fresh, *data), (warm, *same_data) = trained
    assert data == same_data
    searchable = SearchableCNN(network(3), recipe(name, seed=3))
    budget = sum(p.numel() for p in network(3).parameters())
    plan = search(searchable, pictures("train", 3), budget=budget)
    assert found["plan"] == plan.sizes
    generator = torch.Generator().manual_seed(3)
    for cnn, expected in (
        (fresh, apply_plan(network(3), plan, generator=generator)),
        (warm, searchable.warm_start(plan)),
    ):
        assert found["parameters"] == sum(p.numel() for p in cnn.parameters())
        for entry, value in expected.state_dict().items():
            torch.testing.assert_close(cnn.state_dict()[entry], value)


@pytest.mark.slow
def test_accuracy_is_taken_before_the_first_and_after_every_epoch(monkeypatch):
    config = replace(warm_start.TRAIN, epochs=3)
    monkeypatch.setattr(warm_start, "TRAIN", config)
    batches, test = pictures("train", 0), pictures("test", 0)
    cnn, twin = network(0), Autocast(network(0)).to(memory_format=torch.channels_last)
    before = evaluate(twin, test)
    accuracies = warm_start.train_from(cnn, batches, test)
    # Looking at it in between changes nothing of the training.
    train(twin, batches, config)
    assert accuracies[0] == before
    assert len(accuracies) == 4
    assert accuracies[-1] == evaluate(twin, test) != before


def test_the_page_says_what_the_rows_say():
    rows = read_rows(ROOT / "results/warm-start/rows.jsonl")
    rows = sorted(rows, key=lambda row: (row["recipe"], row["seed"]))
    assert [(r["recipe"], r["seed"]) for r in rows] == [
        (name, seed) for name in ("default", "paper") for seed in range(3)
    ]
    for row in rows:
        assert not row["environment"]["commit"].endswith("dirty")
        assert row["samples"] == {"train": warm_start.SAMPLES, "test": warm_start.TEST_SAMPLES}
    page = (ROOT / "docs/search.md").read_text(encoding="utf-8")
    for line in warm_start.summary(rows):
        assert f"| {' | '.join(line)} |\n" in page
