import copy
import pickle

import pytest
import torch
from effconv_core.layers.conv import PredictedConv, resized_conv
from effconv_core.layers.geometry import kernel_shape_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
MODES = ["zeros", "reflect", "replicate", "circular"]


@st.composite
def convs(draw):
    axes = draw(st.sampled_from([1, 2, 2, 3]))
    shape = tuple(draw(st.integers(1, 7 if axes < 3 else 4)) for _ in range(axes))
    stride = draw(st.integers(1, 3))
    paddings = [st.integers(0, 4), st.just("valid")] + ([st.just("same")] if stride == 1 else [])
    return CONVS[axes](
        4,
        8,
        shape,
        stride=stride,
        padding=draw(st.one_of(paddings)),
        dilation=draw(st.integers(1, 2)),
        groups=draw(st.sampled_from([1, 2, 4])),
        bias=draw(st.booleans()),
        padding_mode=draw(st.sampled_from(MODES)),
    )


@settings(deadline=None, max_examples=80)
@given(conv=convs(), size=st.integers(1, 6), space=st.tuples(*[st.integers(14, 19)] * 3))
def test_no_kernel_size_changes_the_output_size(conv, size, space):
    images = torch.randn(1, 4, *space[: len(conv.kernel_size)])
    shape = kernel_shape_of(conv, size)
    expected = conv(images).shape
    predicted, rebuilt = PredictedConv(conv), resized_conv(conv, shape, None)
    weight = next(m for m in rebuilt.modules() if type(m) is type(conv))
    assert weight.weight.shape == (8, 4 // conv.groups, *shape)
    predicted.kernel = weight.weight
    if conv.bias is not None:
        weight.bias.data = conv.bias.data
    assert predicted(images).shape == expected
    torch.testing.assert_close(rebuilt(images), predicted(images))
    assert all(type(module).__module__.startswith("torch.nn") for module in rebuilt.modules())


@settings(deadline=None, max_examples=30)
@given(conv=convs())
def test_the_original_kernel_gives_the_original_output(conv):
    images = torch.randn(2, 4, *[18, 17, 16][: len(conv.kernel_size)])
    predicted = PredictedConv(conv)
    predicted.kernel = conv.weight
    torch.testing.assert_close(predicted(images), conv(images))


@pytest.mark.parametrize("mode", MODES)
def test_an_even_strided_kernel_sees_what_the_padding_mode_shows(mode):
    conv = nn.Conv1d(1, 1, 3, stride=2, padding=1, bias=False, padding_mode=mode)
    predicted = PredictedConv(conv)
    predicted.kernel = torch.tensor([[[1.0, 10.0, 100.0, 1000.0]]])
    # One pixel before, two after, of 1 2 3 4 5.
    before = {"zeros": 0, "reflect": 2, "replicate": 1, "circular": 5}[mode]
    after = {"zeros": (0, 0), "reflect": (4, 3), "replicate": (5, 5), "circular": (1, 2)}[mode]
    row = [before, 1, 2, 3, 4, 5, *after]
    expected = [sum(row[i + j] * 10.0**j for j in range(4)) for i in (0, 2, 4)]
    assert predicted(torch.arange(1.0, 6).view(1, 1, 5)).flatten().tolist() == expected


@pytest.mark.parametrize(("mode", "widest"), [("reflect", 4), ("circular", 5)])
def test_an_input_too_small_for_its_padding_mode_says_so(mode, widest):
    conv = nn.Conv1d(1, 1, 3, padding=1, padding_mode=mode)
    predicted, images = PredictedConv(conv), torch.zeros(1, 1, 5)
    predicted.kernel = torch.zeros(1, 1, 2 * widest + 1)
    assert predicted(images).shape == (1, 1, 5)
    predicted.kernel = torch.zeros(1, 1, 2 * widest + 3)
    with pytest.raises(ValueError, match=rf"needs \({widest + 1},\) pixels .* input of \(5,\)"):
        predicted(images)


def test_an_even_kernel_by_hand():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    predicted = PredictedConv(conv)
    predicted.kernel = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]])
    images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    # Nothing before, one row and column after: the window starts at the pixel itself.
    expected = torch.tensor([[[[4321.0, 402.0], [43.0, 4.0]]]])
    torch.testing.assert_close(predicted(images), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (4, 1), (5, 2), (4, 2), (1, 2)])
def test_a_rebuilt_layer_is_one_convolution_of_torch_nn(size, stride, mode):
    original = nn.Conv2d(3, 8, 3, stride, padding=1, padding_mode=mode)
    rebuilt = resized_conv(original, (size, size), None)
    assert [type(module) for module in rebuilt.modules()] == [nn.Conv2d]
    assert rebuilt.kernel_size == (size, size)
    assert rebuilt.stride == (stride, stride)


def even_and_strided():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, 2, 1))
    net[0] = resized_conv(net[0], (4, 4), None)
    net[2] = resized_conv(net[2], (2, 6), None)
    net[1].running_mean.fill_(0.3)
    return net.eval()


def rebuilt_again(net):
    for place in (0, 2):
        same = resized_conv(net[place], net[place].kernel_size, None)
        same.load_state_dict(net[place].state_dict())
        net[place] = same
    return net


@pytest.mark.parametrize(
    "made",
    [
        lambda net: torch.export.export(net, (torch.zeros(2, 3, 17, 16),)).module(),
        lambda net: torch.jit.script(net),
        lambda net: nn.Sequential(fuse_conv_bn_eval(net[0], net[1]), net[2]),
        lambda net: pickle.loads(pickle.dumps(net)),
        copy.deepcopy,
        rebuilt_again,
    ],
)
def test_an_even_strided_layer_stays_itself(made):
    net, images = even_and_strided(), torch.randn(2, 3, 17, 16)
    expected = net(images)
    assert expected.shape == (2, 4, 5, 4)
    torch.testing.assert_close(made(net)(images), expected)


def test_rebuilt_layers_start_as_the_generator_says():
    conv = nn.Conv2d(64, 64, 3, padding=1)

    def kernel(seed):
        return resized_conv(conv, (5, 5), torch.Generator().manual_seed(seed)).weight

    assert torch.equal(kernel(1), kernel(1))
    assert not torch.equal(kernel(1), kernel(2))
    # 102,400 values: their deviation is known to 1 %.
    assert kernel(1).std().item() == pytest.approx((2 / (64 * 25)) ** 0.5, rel=0.01)


def test_grouped_layers_start_with_the_deviation_of_their_own_groups():
    conv = nn.Conv1d(512, 512, 3, groups=256)
    kernel = resized_conv(conv, (11,), torch.Generator().manual_seed(0)).weight
    # Two outputs a group, eleven taps; 11,264 values.
    assert kernel.std().item() == pytest.approx((2 / (2 * 11)) ** 0.5, rel=0.03)
