"""Each method, trained."""

import json
import os
from pathlib import Path

import pytest
from effconv_core import SizePlan

from tools.methods import page
from tools.methods.accuracy import DRAWN, Training, train_method
from tools.methods.networks import METHODS, SIZES, make, parameters


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_trained(method):
    data = os.environ.get("EFFCONV_DATA")
    if not data or not (Path(data) / "cifar10" / "index.json").is_file():
        pytest.skip("EFFCONV_DATA holds no CIFAR-10")
    row = train_method(Training(method, "small", 0, 1, 320, test_pictures=100), "cpu")
    assert row["pictures"] == 320
    assert 0 < row["accuracy"] < 1
    assert bool(row.get("sizes")) == (method == "effconv")
    assert len(row["learned_sizes"]) == {"flexnet": 7, "multi-resolution": 9}.get(method, 0)
    SizePlan(row.get("sizes", {"a": 3}))
    json.dumps(row)


def test_the_drawn_set_is_trained_on_too(monkeypatch):
    monkeypatch.setitem(DRAWN, "image_size", 24)
    row = train_method(Training("uniform", "small", 0, 1, 64, "drawn", test_pictures=32), "cpu")
    assert (row["data"], row["environment"]["data"]) == ("drawn", "drawn patches in noise")
    # One channel into 16, four classes out of 64.
    assert row["parameters"] == parameters(make("uniform", SIZES["small"], 24, 0)) - 288 - 6 * 65
    assert page.accuracy_file("drawn", "small", "cpu") == "accuracy-drawn-small-cpu.jsonl"
    assert page.accuracy_file("cifar10", "small", "cpu") == "accuracy-small-cpu.jsonl"
