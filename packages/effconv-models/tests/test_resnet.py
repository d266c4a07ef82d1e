"""ResNets for small and large images."""

import pytest
import torch
from effconv_models import CifarResNet, create_model


def test_parameter_free_shortcut_subsamples_and_appends_zeros():
    shortcut = CifarResNet(8).layer2[0].downsample
    assert not list(shortcut.parameters())
    features = torch.randn(2, 16, 9, 8, generator=torch.Generator().manual_seed(0))
    output = shortcut(features)
    assert torch.equal(output[:, :16], features[:, :, ::2, ::2])
    assert output.shape == (2, 32, 5, 4)
    assert not output[:, 16:].any()


def test_resnet18_is_that_of_torchvision():
    torchvision = pytest.importorskip(
        "torchvision", reason="the peer that ResNet18 must agree with"
    )
    generator = torch.Generator().manual_seed(0)
    ours = create_model("resnet18", num_classes=1000, generator=generator)
    theirs = torchvision.models.resnet18()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 65, 64, generator=generator)
    torch.testing.assert_close(ours(images), theirs(images))


def test_a_block_adds_its_shortcut_before_the_last_rectifier():
    network = CifarResNet(8, generator=torch.Generator().manual_seed(0)).eval()
    block = network.layer2[0]
    images = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    features = block.bn2(block.conv2(block.bn1(block.conv1(images)).relu()))
    torch.testing.assert_close(block(images), (features + block.downsample(images)).relu())


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_a_stage_of_small_images_halves_them_and_doubles_the_channels(depth):
    network = CifarResNet(depth)
    features = network.conv1(torch.zeros(1, 3, 32, 32))
    for stage, (channels, side) in zip(
        (network.layer1, network.layer2, network.layer3), ((16, 32), (32, 16), (64, 8))
    ):
        assert len(stage) == (depth - 2) // 6
        features = stage(features)
        assert features.shape == (1, channels, side, side)
