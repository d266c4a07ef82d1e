"""Networks of other packages are searched, and what is found is what was searched."""

import json
from pathlib import Path

import pytest
import torch
from effconv_core import SearchableCNN

from tools.networks import outside, page
from tools.networks.outside import LIKE, check_network, difference, networks
from tools.support.rows import read_rows

ROOT = Path(__file__).parents[3]
NETWORKS = {network["name"]: network for network in networks()}


def holds(network):
    pytest.importorskip(network["package"])
    row = check_network(network)
    assert row["outcome"] == network["expect"], row.get("sentence")
    assert row["outcome"] == "refused" or row["difference"] <= LIKE
    return row


@pytest.mark.parametrize("name", ["lcnet_035", "swin_t", "tf_mobilenetv3_small_minimal_100"])
def test_three_networks_are_as_expected(name):
    row = holds(NETWORKS[name])
    assert (row["layers"] > 0) == (row["outcome"] == "searched")


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_is_as_expected(name):
    holds(NETWORKS[name])


@pytest.mark.parametrize("name", ["lcnet_035", "resnet10t"])
def test_one_mirrored_kernel_is_noticed(name, monkeypatch):
    made = SearchableCNN.warm_start

    def mirrored(searchable, plan):
        cnn = made(searchable, plan)
        larger = [layer for layer in plan if plan[layer] > 1]
        kernel = cnn.get_submodule(larger[len(larger) // 2]).weight
        kernel.data = kernel.flip(2, 3)
        return cnn

    monkeypatch.setattr(SearchableCNN, "warm_start", mirrored)
    monkeypatch.setattr(outside, "search", lambda *_, **__: None)
    row = check_network(NETWORKS[name])
    assert row["outcome"] == "failed"
    assert row["difference"] > LIKE


def test_what_fails_is_told():
    row = check_network({**NETWORKS["lcnet_035"], "shapes": [[3, 64]]})
    assert row["outcome"] == "failed"
    assert row["sentence"]


def test_networks_that_differ_are_told_apart():
    outputs = [torch.ones(2, 3), {"a": torch.zeros(1)}]
    assert difference(outputs, outputs) == 0
    assert difference(outputs, [torch.full((2, 3), 1.5), {"a": torch.zeros(1)}]) == 0.5
    with pytest.raises(ValueError, match="shapes"):
        difference(outputs, [torch.ones(2, 1), {"a": torch.zeros(1)}])


def test_the_results_are_of_the_listed_networks_and_the_page_is_of_the_results(monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = {row["name"]: row["outcome"] for row in read_rows(page.RESULTS)}
    assert rows == {name: network["expect"] for name, network in NETWORKS.items()}
    assert page.PAGE.read_text(encoding="utf-8") == page.networks_page()


def test_a_failure_stands_on_the_page(monkeypatch, tmp_path):
    environment = {"commit": "c", "device": "d", "torch": "t", "timm": "1"}
    row = {"package": "timm", "name": "n", "outcome": "failed", "sentence": "a | b"}
    row |= {"layers": 0, "alone": {"has one tap": 2}, "environment": environment}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(page, "RESULTS", tmp_path / "rows.jsonl")
    assert "1 failed" in page.networks_page()
    assert "a \\| b" in page.networks_page()
