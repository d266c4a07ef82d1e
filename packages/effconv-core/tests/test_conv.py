import pytest
import torch
from effconv_core.conv import PredictedConv2d, padding_for, resized_conv
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn


@st.composite
def convs(draw):
    original = draw(st.integers(2, 7))
    stride = draw(st.integers(1, 3))
    paddings = [st.integers(0, 4), st.just("valid")] + ([st.just("same")] if stride == 1 else [])
    return nn.Conv2d(
        2,
        4,
        original,
        stride=stride,
        padding=draw(st.one_of(paddings)),
        dilation=draw(st.integers(1, 2)),
        groups=draw(st.sampled_from([1, 2])),
        bias=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=150)
@given(conv=convs(), size=st.integers(1, 8), height=st.integers(9, 20), width=st.integers(9, 20))
def test_no_kernel_size_changes_the_output_size(conv, size, height, width):
    images = torch.randn(1, 2, height, width)
    try:
        expected = conv(images).shape
    except RuntimeError:
        assume(False)  # the original itself does not fit into so small an image
    predicted, rebuilt = PredictedConv2d(conv), resized_conv(conv, size, None)
    weight = next(m for m in rebuilt.modules() if isinstance(m, nn.Conv2d))
    predicted.kernel = weight.weight
    if conv.bias is not None:
        weight.bias.data = conv.bias.data
    assert predicted(images).shape == expected
    torch.testing.assert_close(rebuilt(images), predicted(images))


@settings(deadline=None, max_examples=50)
@given(conv=convs())
def test_the_original_kernel_gives_the_original_output(conv):
    images = torch.randn(2, 2, 20, 17)
    predicted = PredictedConv2d(conv)
    predicted.kernel = conv.weight
    torch.testing.assert_close(predicted(images), conv(images))


@pytest.mark.parametrize("size", range(1, 8))
def test_padding_of_a_same_convolution(size):
    before, after = (size - 1) // 2, size // 2
    for padding in (1, "same"):
        conv = nn.Conv2d(1, 1, 3, padding=padding)
        assert padding_for(conv, size) == (before, after, before, after)


def test_an_even_kernel_by_hand():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    predicted = PredictedConv2d(conv)
    predicted.kernel = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    # Nothing before, one row and column after: the window starts at the pixel itself.
    expected = torch.tensor([[[[4321.0, 402.0], [43.0, 4.0]]]])
    torch.testing.assert_close(predicted(images), expected)


@pytest.mark.parametrize(
    ("size", "stride", "kinds"),
    [
        (3, 1, [nn.Conv2d]),
        (4, 1, [nn.Conv2d]),
        (5, 2, [nn.Conv2d]),
        (4, 2, [nn.Sequential, nn.ZeroPad2d, nn.Conv2d]),
    ],
)
def test_rebuilt_layers_are_of_torch_nn_alone(size, stride, kinds):
    rebuilt = resized_conv(nn.Conv2d(3, 8, 3, stride, padding=1), size, None)
    assert [type(module) for module in rebuilt.modules()] == kinds


def test_rebuilt_layers_start_as_the_generator_says():
    conv = nn.Conv2d(64, 64, 3, padding=1)

    def kernel(seed):
        return resized_conv(conv, 5, torch.Generator().manual_seed(seed)).weight

    assert torch.equal(kernel(1), kernel(1))
    assert not torch.equal(kernel(1), kernel(2))
    # 102,400 values: their deviation is known to 1 %.
    assert kernel(1).std().item() == pytest.approx((2 / (64 * 25)) ** 0.5, rel=0.01)
