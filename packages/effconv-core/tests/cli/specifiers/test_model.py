"""The networks that a MODEL specifier names."""

import pytest
import torch
from effconv_core.cli.specifiers.model import make_model


@pytest.mark.parametrize(
    ("name", "package"),
    [("torchvision:resnet18", "torchvision"), ("timm:resnet10t", "timm"), ("effconv:resnet18", "")],
)
def test_networks_by_name_take_the_classes_and_the_channels_of_the_set(name, package):
    pytest.importorskip(package or "effconv_models")
    channels = 3 if package == "torchvision" else 1
    model = make_model(name, num_classes=7, channels=channels, seed=5)
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, channels, 64, 64)).shape == (1, 7)
    same, other = (make_model(name, num_classes=7, channels=channels, seed=s) for s in (5, 6))
    first = next(model.parameters())
    assert torch.equal(next(same.parameters()), first)
    assert not torch.equal(next(other.parameters()), first)
