"""torchvision is imported beside whatever build of torch there is."""

import pytest
import torch

import tools.support.compat  # noqa: F401, before torchvision


def test_a_network_of_torchvision_runs_after_it():
    torchvision = pytest.importorskip("torchvision")
    network = torchvision.models.resnet18(num_classes=2)
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 2)
    assert str(torch.ops.torchvision.nms.default._schema).startswith("torchvision::nms")
