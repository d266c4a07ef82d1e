"""Networks of other packages are searched, and what is found is what was searched."""

import pytest
import torch
from effconv_core import SearchableCNN

from tools.networks import outside
from tools.networks.outside import LIKE, check_network, difference, networks

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
