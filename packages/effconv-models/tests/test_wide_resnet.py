"""Wide ResNets."""

import pytest
import torch
from effconv_models import WideResNet


def test_wide_resnet_block_normalises_before_its_shortcut_branches():
    block = WideResNet(10, 2, generator=torch.Generator().manual_seed(0)).layer2[0].eval()
    images = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    activated = block.bn1(images).relu()
    expected = block.conv2(block.bn2(block.conv1(activated)).relu()) + block.downsample(activated)
    torch.testing.assert_close(block(images), expected)


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 3)])
def test_a_stage_is_as_much_wider_as_the_name_says(depth, width):
    network = WideResNet(depth, width)
    features = network.conv1(torch.zeros(1, 3, 32, 32))
    assert features.shape == (1, 16, 32, 32)
    stages = (network.layer1, network.layer2, network.layer3)
    for stage, (channels, side) in zip(stages, ((16, 32), (32, 16), (64, 8))):
        assert len(stage) == (depth - 4) // 6
        features = stage(features)
        assert features.shape == (1, width * channels, side, side)


def test_a_block_that_keeps_the_shape_has_no_projection():
    block = WideResNet(16, 1).layer1[1].eval()
    assert block.downsample is None
    images = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    activated = block.bn1(images).relu()
    expected = images + block.conv2(block.bn2(block.conv1(activated)).relu())
    torch.testing.assert_close(block(images), expected)
