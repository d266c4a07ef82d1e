"""The instruments of scale: what is counted, what is fitted, and a stream through two ranks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.bench import cost_page
from tools.bench.cost import TERMS, CostPoint, count, fit, fitted, make, predicted

ROOT = Path(__file__).parents[3]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_amounts_of_a_stack_by_hand():
    point = CostPoint(layers=2, channels=4, size=5, image=8, hidden=16, batch=3)
    plain, searchable, budget = make(point)
    images = torch.randn(3, 3, 8, 8)
    stem, searched, last = 3 * 64 * 4 * 27, 2 * 3 * 64 * 4 * 4 * 25, 3 * 4 * 10
    found = count(point, plain, images)
    assert found["multiplications"] == stem + searched + last
    # Stem, then three layers of each of two parts, then pool, flatten and classes.
    assert found["values"] == 7 * 3 * 64 * 4 + 2 * 3 * 4 + 3 * 10
    assert found["parameters"] == 4 * 28 + 2 * (4 * 4 * 25 + 4 + 8) + 50 == budget
    assert (found["layers"], found["gru"], found["projection"]) == (0, 0, 0)

    found = count(point, searchable.train(), images)
    assert found["multiplications"] == stem + searched + last
    assert found["layers"] == 2
    assert found["gru"] == 3 * 16 * 16 * (2 + 2 * 25)
    assert found["projection"] == 25 * 16 * 2 * 16
    assert searchable.sizes == [5, 5]


def test_where_sizes_are_drawn_the_amounts_are_those_drawn():
    point = CostPoint(layers=2, channels=4, size=4, image=8, batch=2, recipe="default")
    _, searchable, _ = make(point)
    found = count(point, searchable.train(), torch.randn(2, 3, 8, 8))
    taps = (found["multiplications"] - 2 * 64 * 4 * 27 - 80) / (2 * 64 * 16) / 2
    # The ring above soft sizes that are even over 2 to 6 is on: 3, 4, 5, 6 alike.
    assert taps == pytest.approx((9 + 16 + 25 + 36) / 4, rel=0.25)
    assert found["projection"] == 0


def test_the_fit_finds_the_seconds_of_each_term():
    generator = np.random.default_rng(0)
    planted = dict(zip(TERMS, [2e-3, 1e-4, 3e-11, 2e-9, 0.0, 5e-11, 1e-9], strict=True))
    sizes = dict(zip(TERMS, [1, 10, 1e9, 1e7, 1e6, 1e8, 1e6], strict=True))
    rows = []
    for _ in range(30):
        amounts = {t: 1.0 if t == "step" else sizes[t] * generator.uniform(0.1, 3) for t in TERMS}
        rows.append((amounts, predicted(planted, amounts)))
    found = fit(rows, TERMS)
    for term, value in planted.items():
        assert found[term] == pytest.approx(value, rel=1e-6, abs=1e-20)


def test_the_committed_points_give_the_committed_model():
    raw = json.loads((ROOT / cost_page.COST).read_text())
    found = fitted(raw["points"])
    for kind, model in raw["seconds_per_unit"].items():
        assert found["seconds_per_unit"][kind] == pytest.approx(model, rel=1e-6)
    checks = raw["predicted_over_measured_less_1"]
    for name, off in found["predicted_over_measured_less_1"].items():
        assert off == pytest.approx(checks[name], rel=1e-6)
