"""Networks that differ in what makes their kernels."""

import pytest
import torch
from effconv_models import FlexConv, FlexConvConfig, create_model
from effconv_models.flexconv.variants import ckcnn16


@pytest.mark.parametrize(
    ("name", "kernel", "masked"),
    [
        ("flexnet_gabor16", "gabor", True),
        ("ckcnn16", "siren", False),
        ("ckcnn_magnet16", "magnet", False),
        ("cifar_resnet44_flexconv", "magnet", True),
        ("cifar_resnet44_ckconv", "magnet", False),
    ],
)
def test_every_layer_has_the_kernel_network_of_the_name(name, kernel, masked):
    model = create_model(name, num_classes=3, generator=torch.Generator().manual_seed(0))
    layers = [layer for layer in model.modules() if isinstance(layer, FlexConv)]
    assert layers
    assert {(layer.config.kernel, layer.config.masked) for layer in layers} == {(kernel, masked)}


def test_other_settings_are_kept():
    model = ckcnn16(config=FlexConvConfig(hidden=8, omega_0=20.0))
    (first, *_) = (layer for layer in model.modules() if isinstance(layer, FlexConv))
    assert (first.config.hidden, first.config.omega_0, first.config.kernel) == (8, 20.0, "siren")
