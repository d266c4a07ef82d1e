"""FlexConv in networks of torchvision and timm, from the replacement to plain convolutions."""

import pytest
import torch
from effconv_models import (
    FlexConvConfig,
    effective_sizes,
    left_alone,
    mask_parameters,
    to_plain,
    with_flexconv,
)
from torch import nn

pytestmark = pytest.mark.slow
models = pytest.importorskip("torchvision.models")
timm = pytest.importorskip("timm")

MAKE = {
    "resnet18": lambda: models.resnet18(num_classes=10),
    "resnext": lambda: models.resnet.ResNet(
        models.resnet.Bottleneck, [1, 1, 1, 1], 10, groups=32, width_per_group=4
    ),
    "densenet121": lambda: models.densenet121(num_classes=10),
    "mobilenet_v3_small": lambda: models.mobilenet_v3_small(num_classes=10),
    "convnext_atto": lambda: timm.create_model("convnext_atto", num_classes=10),
    "inception_v3": lambda: models.inception_v3(
        num_classes=10, aux_logits=False, init_weights=False
    ),
}
CONFIG = FlexConvConfig(hidden=4, layers=1)


@pytest.mark.parametrize("name", MAKE)
def test_a_network_keeps_its_shapes_learns_and_becomes_plain_again(name):
    model = MAKE[name]()
    # So that evaluation has the statistics of the one training step.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    images = torch.randn(2, 3, 96, 96)
    flexible = with_flexconv(model, images[:1], config=CONFIG)
    sizes = effective_sizes(flexible)
    convs = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert sorted([*sizes, *left_alone(model)]) == sorted(convs)
    assert len(sizes) >= 4
    flexible.train()(images).square().mean().backward()
    gradients = torch.cat([mask.grad.flatten() for mask in mask_parameters(flexible)])
    assert gradients.isfinite().all()
    assert gradients.count_nonzero() >= len(gradients) / 2
    flexible.eval()
    with torch.no_grad():
        expected = flexible(images)
        ours = to_plain(flexible)(images)
    # Plain or by FFT, float32 either way; the network's depth spreads the rounding.
    assert (ours - expected).norm() <= 1e-3 * expected.norm()
    assert expected.isfinite().all()
