"""The comparison of methods: equal parameters, all rows, and the ratios that it prints."""

import json
import os
from pathlib import Path

import pytest
import torch
from effconv_core import SizePlan

from tools.bench.steps import random_batch
from tools.methods import cost, page
from tools.methods.accuracy import DRAWN, Training, train_method
from tools.methods.networks import METHODS, SIZES, TRAIN, at_budget, macs, make, parameters

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("size", SIZES)
def test_networks_have_about_as_many_parameters(size):
    counts = {method: parameters(make(method, SIZES[size], 32, 0)) for method in METHODS}
    counts["effconv"] = parameters(at_budget(SIZES[size], 0))
    for method, count in counts.items():
        assert abs(count / SIZES[size].parameters - 1) < 0.04, method
    assert set(TRAIN) == set(METHODS)


def test_macs_of_a_flexnet_are_those_of_its_kernels():
    network = make("flexnet", SIZES["small"], 32, 0)
    convs = [m for m in network.modules() if type(m).__name__ == "FlexConv"]
    # All kernels start at 5x5 taps, and every feature map has 32x32 pixels.
    taps = sum(m.c_in * m.c_out for m in convs) * 25 * 32 * 32
    shortcuts = macs(network, (3, 32, 32)) - taps - network.fc.in_features * 10
    assert 0 <= shortcuts < 0.02 * taps


@pytest.mark.parametrize("method", METHODS)
def test_every_step_of_a_method_moves_what_it_trains(method):
    steps = cost.method_steps(method, SIZES["small"], 2, 8, "cpu")
    names = {"train"}
    if method == "effconv":
        names |= {"search, paper recipe", "search, default recipe"}
    if method == "multi-resolution":
        names |= {"mixing"}
    assert set(steps) == names
    for step in steps.values():
        step()


def test_a_mixing_step_moves_the_mixing_alone():
    network = make("multi-resolution", SIZES["small"], 32, 0)
    before = {name: value.clone() for name, value in network.named_parameters()}
    cost._mixing_step(network, *random_batch(2, 8, "cpu"))()
    moved = {n for n, value in network.named_parameters() if not torch.equal(value, before[n])}
    assert moved
    assert all(before[name].numel() == 4 for name in moved)


def test_memory_is_that_of_a_process_of_its_own():
    assert cost.peak_of("uniform", "small", 2, 8, "cpu") > 100


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


def made_up_cost():
    rows = []
    for image_size in (32, 96):
        for method in METHODS:
            names = {"effconv": ["search, paper recipe"], "multi-resolution": ["mixing"]}
            seconds = {"train": 2.0, **dict.fromkeys(names.get(method, []), 4.0)}
            if method == "flexnet":
                seconds["train"] = 10.0
            told = {n: {"median": s, "p20": s, "p80": s} for n, s in seconds.items()}
            rows.append(
                {
                    "method": method,
                    "size": "paper",
                    "image_size": image_size,
                    "batch_size": 50,
                    "parameters": 660_000,
                    "macs": 10**8,
                    "peak_memory_mib": 500,
                    "seconds": told,
                }
            )
    environment = {"commit": "c", "device": "cpu", "torch": "2"}
    return {"rounds": 3, "environment": environment, "rows": rows}


def test_the_page_tells_the_ratios_beside_the_papers(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    (tmp_path / "cost-cpu.json").write_text(json.dumps(made_up_cost()))
    said = page.methods_page()
    assert "5.0 times a training step, 2.5 times a step of the paper's search" in said
    # 127 / 17.77 and 1800 / 13.2.
    assert "The paper states 7.1 times" in said
    assert "The paper states 136.4 times" in said
    # 50,000 pictures in batches of 50 at 10 s.
    assert "| FlexNet | 0.66 M | 100 M | train | 10000 (10000 to 10000) | 10000 | 500 |" in said
    assert "- cost on cuda" in said
    assert "- cost on cpu" not in said


def test_the_page_is_what_the_results_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert page.PAGE.read_text(encoding="utf-8") == page.methods_page()
