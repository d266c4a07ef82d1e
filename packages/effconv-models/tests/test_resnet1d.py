"""ResNets for sequences."""

import pytest
import torch
import torch.nn.functional as F
from effconv_models import ResNet1d, block_kernel_sizes, create_model, same_conv
from effconv_models.resnet1d import BasicBlock1d


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("name", "layers"), [("resnet1d10", 8), ("resnet1d14", 12)])
@pytest.mark.parametrize("size", [1, 9, 31])
def test_each_size_gives_the_same_lengths(name, layers, size):
    model = create_model(name, in_channels=1, kernel_sizes=size, generator=seeded())
    assert block_kernel_sizes(model) == dict.fromkeys(block_kernel_sizes(model), size)
    assert len(block_kernel_sizes(model)) == layers
    lengths = []
    for stage in range(1, model.stages + 1):
        model.get_submodule(f"layer{stage}").register_forward_hook(
            lambda module, inputs, output: lengths.append(tuple(output.shape[1:]))
        )
    model(torch.randn(2, 1, 101, generator=seeded()))
    expected = [(16, 26), (32, 13), (64, 7), (128, 4)]
    assert lengths == expected[: model.stages]


def test_a_block_against_numbers_in_loops():
    block = BasicBlock1d(2, 4, 2, (5, 4), generator=seeded()).eval()
    x = torch.randn(1, 2, 9, generator=seeded(1))

    def convolved(x, weight, stride):
        size, length = weight.shape[2], -(-x.shape[1] // stride)
        out = torch.zeros(len(weight), length)
        for c in range(len(weight)):
            for t in range(length):
                for tap in range(size):
                    place = t * stride + tap - (size - 1) // 2
                    if 0 <= place < x.shape[1]:
                        out[c, t] += weight[c, :, tap] @ x[:, place]
        return out / (1 + 1e-5) ** 0.5  # batch norm at its initial statistics

    with torch.no_grad():
        residual = convolved(convolved(x[0], block.conv1.weight, 2).relu(), block.conv2.weight, 1)
        shortcut = convolved(x[0], block.downsample[0].weight, 2)
        torch.testing.assert_close(block(x)[0], (residual + shortcut).relu())


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (4, 1), (4, 2), (5, 3)])
def test_same_conv_of_a_sequence_is_a_row_of_that_of_an_image(size, stride):
    line = same_conv(2, 3, size, stride, axes=1, generator=seeded())
    kernel = next(iter(line.parameters()))
    x = torch.randn(1, 2, 10, generator=seeded(1))
    padded = F.pad(x, ((size - 1) // 2, size // 2))
    torch.testing.assert_close(line(x), F.conv1d(padded, kernel, stride=stride))


@pytest.mark.parametrize("axes", [0, 3, None])
def test_other_numbers_of_axes_are_refused(axes):
    with pytest.raises(ValueError, match="axes"):
        same_conv(2, 3, 3, axes=axes)


def test_numbers_are_checked():
    for wrong in ({"stages": 0}, {"blocks": 0}, {"channels": 0}, {"num_classes": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ResNet1d(**{"stages": 2, "blocks": 1, **wrong})
