import math

import pytest
import torch
from effconv_models import same_conv
from effconv_models.layers import linear
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


def convolve_by_hand(image, kernel, stride):
    """Slide a kernel over an image with (s - 1) // 2 zeros before and s // 2 after."""
    size, before = kernel.shape[0], (kernel.shape[0] - 1) // 2
    rows, columns = (math.ceil(length / stride) for length in image.shape)
    output = torch.zeros(rows, columns, dtype=image.dtype)
    for row in range(rows):
        for column in range(columns):
            for i in range(size):
                for j in range(size):
                    y, x = row * stride + i - before, column * stride + j - before
                    if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                        output[row, column] += kernel[i, j] * image[y, x]
    return output


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", range(1, 8))
def test_padding_is_that_of_a_convolution_by_hand(size, stride):
    generator = torch.Generator().manual_seed(size)
    conv = same_conv(1, 1, size, stride, generator=generator).double()
    image = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    (kernel,) = conv.parameters()
    expected = convolve_by_hand(image, kernel[0, 0].detach(), stride)
    torch.testing.assert_close(conv(image[None, None])[0, 0], expected)


@settings(deadline=None, max_examples=100)
@given(
    size=st.integers(1, 9),
    stride=st.integers(1, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_output_size_is_that_of_a_1x1_kernel(size, stride, height, width):
    with torch.device("meta"):
        images = torch.zeros(2, 3, height, width)
        output = same_conv(3, 4, size, stride)(images)
    assert output.shape == (2, 4, math.ceil(height / stride), math.ceil(width / stride))


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2), (4, 1), (4, 2), (2, 3)])
@pytest.mark.parametrize("axes", [1, 2])
def test_one_convolution_pads_as_written(size, stride, axes):
    conv = same_conv(3, 4, size, stride, axes=axes)
    assert type(conv) is (nn.Conv1d, nn.Conv2d)[axes - 1]
    inputs = torch.randn(2, 3, *(9,) * axes, generator=torch.Generator().manual_seed(0))
    padded = nn.functional.pad(inputs, [(size - 1) // 2, size // 2] * axes)
    convolve = (nn.functional.conv1d, nn.functional.conv2d)[axes - 1]
    torch.testing.assert_close(conv(inputs), convolve(padded, conv.weight, stride=stride))


def test_kernels_are_fan_out_normal():
    conv = same_conv(32, 64, 5, generator=torch.Generator().manual_seed(0))
    assert conv.bias is None
    # The standard deviation of 51,200 draws has a relative error of about 0.3 %.
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 25)) ** 0.5, rel=0.02)
    assert conv.weight.mean().item() == pytest.approx(0, abs=1e-3)


def test_kernels_of_groups_are_fan_out_normal_for_the_outputs_of_one_group():
    conv = same_conv(64, 128, 5, groups=16, generator=torch.Generator().manual_seed(0))
    assert conv.weight.shape == (128, 4, 5, 5)
    assert conv.weight.std().item() == pytest.approx((2 / (128 / 16 * 25)) ** 0.5, rel=0.02)


def test_classifier_is_uniform_as_in_torch():
    classifier = linear(64, 1000, generator=torch.Generator().manual_seed(0))
    for values in (classifier.weight, classifier.bias):
        assert values.abs().max().item() == pytest.approx(1 / 8, rel=0.02)
        assert values.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ((0, 4, 3, 1), ValueError, "c_in is 0; the smallest allowed is 1"),
        ((3, -1, 3, 1), ValueError, "c_out is -1; the smallest allowed is 1"),
        ((3, 4, 0, 1), ValueError, "kernel_size is 0; the smallest allowed is 1"),
        ((3, 4, 3, 0), ValueError, "stride is 0; the smallest allowed is 1"),
        (
            (4, 6, 3, 1, 4),
            ValueError,
            "groups is 4 beside 4 and 6 channels; pass what divides both",
        ),
        ((3, 4, (3, 3), 1), TypeError, r"kernel_size is \(3, 3\); it must be an int"),
        ((3, 4, True, 1), TypeError, "kernel_size is True; it must be an int"),
        ((3, 4, 3, 2.0), TypeError, "stride is 2.0; it must be an int"),
    ],
)
def test_same_conv_refuses(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        same_conv(*arguments[:4], groups=(*arguments, 1)[4])
