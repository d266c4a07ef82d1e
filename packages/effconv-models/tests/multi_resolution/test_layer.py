"""The convolution at several resolutions, written out."""

import math

import pytest
import torch
from effconv_models import MBConv6, MultiResolution, conv_block
from effconv_models.multi_resolution.layer import ResolutionNorm, downsample, upsample
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def pooled_by_hand(image, factor):
    rows, columns = (math.ceil(length / factor) for length in image.shape)
    return torch.stack(
        [
            torch.stack(
                [
                    image[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].mean()
                    for x in range(columns)
                ]
            )
            for y in range(rows)
        ]
    )


def line_by_hand(length, factor, pixel):
    """Give the coarse pixels, and their shares, that a fine pixel lies between."""
    place = min(max((pixel + 0.5) / factor - 0.5, 0), length - 1)
    before = math.floor(place)
    return [(before, before + 1 - place), (min(before + 1, length - 1), place - before)]


def enlarged_by_hand(image, factor, size):
    output = torch.zeros(size, dtype=image.dtype)
    for y in range(size[0]):
        for x in range(size[1]):
            for i, share_i in line_by_hand(image.shape[0], factor, y):
                for j, share_j in line_by_hand(image.shape[1], factor, x):
                    output[y, x] += share_i * share_j * image[i, j]
    return output


def block_by_hand(images, kernel, scale, shift):
    """Convolve, rectify, normalise over the batch: `(B, c_in, h, w)` in and `(B, c_out, h, w)`."""
    B, _, h, w = images.shape
    output = torch.zeros(B, len(kernel), h, w, dtype=images.dtype)
    for y in range(h):
        for x in range(w):
            for i in range(3):
                for j in range(3):
                    if 0 <= y + i - 1 < h and 0 <= x + j - 1 < w:
                        pixels = images[:, :, y + i - 1, x + j - 1]
                        output[:, :, y, x] += pixels @ kernel[:, :, i, j].T
    output = output.clamp(min=0)
    for c in range(len(kernel)):
        channel = output[:, c]
        spread = (channel - channel.mean()).square().mean()
        output[:, c] = (channel - channel.mean()) / (spread + 1e-5).sqrt() * scale[c] + shift[c]
    return output


def each_channel(function, images):
    return torch.stack([torch.stack([function(plane) for plane in image]) for image in images])


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (3, 1)], ids=str)
def test_layer_is_equation_4_written_out(size):
    layer = MultiResolution(conv_block(2, 3, generator=seeded()), (0, 1, 3)).double()
    norm, resolutions = layer.block.norm, layer.resolutions
    with torch.no_grad():
        layer.mixing.copy_(draw(3, seed=1))
        norm.weight.copy_(draw(3, seed=2))
        norm.bias.copy_(draw(3, seed=3))
    images = draw(2, 2, *size, seed=4)

    raw = [math.exp(value) for value in layer.mixing.tolist()]
    expected = torch.zeros(2, 3, *size, dtype=torch.float64)
    for value, resolution in zip(raw, resolutions, strict=True):
        factor = 2**resolution
        coarse = each_channel(lambda plane, f=factor: pooled_by_hand(plane, f), images)
        features = block_by_hand(coarse, layer.block.conv.weight, norm.weight, norm.bias)
        expected += (value / sum(raw)) * each_channel(
            lambda plane, f=factor: enlarged_by_hand(plane, f, size), features
        )
    torch.testing.assert_close(layer(images), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block", ["conv", "mbconv6"])
def test_gradients_of_images_filters_and_mixing(block):
    made = conv_block(2, 2, generator=seeded()) if block == "conv" else MBConv6(2)
    layer = MultiResolution(made, (0, 1, 2)).double()
    with torch.no_grad():
        layer.mixing.copy_(draw(3, seed=1))

    def forward(images, mixing, kernel):
        values = {"mixing": mixing, "block.conv.weight": kernel}
        return torch.func.functional_call(layer, values, images)

    inputs = draw(2, 2, 5, 3, seed=2), layer.mixing.detach(), layer.block.conv.weight.detach()
    assert torch.autograd.gradcheck(forward, [value.requires_grad_() for value in inputs])


@settings(deadline=None, max_examples=30)
@given(
    resolution=st.integers(0, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_an_even_image_stays_even_at_any_size(resolution, height, width):
    images = torch.full((1, 2, height, width), 1.5, dtype=torch.float64)
    coarse = downsample(images, resolution)
    assert coarse.shape[2:] == tuple(math.ceil(n / 2**resolution) for n in (height, width))
    torch.testing.assert_close(upsample(coarse, resolution, (height, width)), images)


def test_mixing_starts_equal_and_is_learned_or_left():
    assert MultiResolution(conv_block(1, 1), range(4)).weights().tolist() == [0.25] * 4
    fixed = MultiResolution(conv_block(1, 1), range(4), learned=False)
    assert fixed.weights().tolist() == [0.25] * 4
    assert "mixing" not in dict(fixed.named_parameters())
    assert "mixing" in fixed.state_dict()


def test_each_resolution_has_statistics_of_its_own_and_one_scale():
    layer = MultiResolution(conv_block(1, 1), (0, 1)).double()
    nn.init.ones_(layer.block.conv.weight)
    images = draw(4, 1, 8, 8)
    layer(images)
    for position in (0, 1):
        coarse = downsample(images, position)
        features = nn.functional.conv2d(coarse, layer.block.conv.weight, padding=1).relu()
        mean = layer.block.norm.running_mean[position]
        torch.testing.assert_close(mean, 0.1 * features.mean()[None])
        variance = layer.block.norm.running_var[position]
        torch.testing.assert_close(variance, 0.9 + 0.1 * features.var()[None])
    assert layer.block.norm.weight.shape == (1,)


def test_a_block_of_ones_own():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 5, padding=2), nn.BatchNorm2d(3)

        def forward(self, images):
            return images + self.norm(self.conv(images)).relu()

    layer = MultiResolution(Residual(), (0, 2))
    assert isinstance(layer.block.norm, ResolutionNorm)
    assert layer(torch.randn(2, 3, 9, 9, generator=seeded())).shape == (2, 3, 9, 9)
    assert isinstance(layer.block_at(1).norm, nn.BatchNorm2d)


def test_mbconv6_written_out():
    block = MBConv6(4, generator=seeded()).double().eval()
    images = draw(2, 4, 6, 5, seed=1)
    wide = nn.functional.silu(
        block.expand_norm(torch.einsum("oi,bihw->bohw", block.expand.weight[:, :, 0, 0], images))
    )
    planes = [
        nn.functional.conv2d(wide[:, c : c + 1], block.conv.weight[c : c + 1], padding=1)
        for c in range(24)
    ]
    deep = nn.functional.silu(block.conv_norm(torch.cat(planes, 1)))
    reduce, expand = block.excitation[2], block.excitation[4]
    hidden = nn.functional.silu(deep.mean((2, 3)) @ reduce.weight.T + reduce.bias)
    gate = torch.sigmoid(hidden @ expand.weight.T + expand.bias)
    out = torch.einsum(
        "oi,bihw->bohw", block.project.weight[:, :, 0, 0], deep * gate[..., None, None]
    )
    torch.testing.assert_close(block(images), images + block.project_norm(out))
