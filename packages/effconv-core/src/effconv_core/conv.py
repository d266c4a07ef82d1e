"""Convolutions whose kernel size may change without changing the size of their output."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PredictedConv2d(nn.Module):
    """A convolution that is handed its kernel before each forward pass.

    Args:
        conv: the original: its bias and geometry are kept, its weight is not.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.kernel_size, self.padding = conv.kernel_size, conv.padding
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.bias = conv.bias
        self.kernel: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Convolve `(B, c_in, H, W)`; the output size is that of the original."""
        left, right, top, bottom = padding_for(self, self.kernel.shape[-1])
        padding = (top, left)
        if left != right or top != bottom or min(padding) < 0:
            images, padding = F.pad(images, (left, right, top, bottom)), 0
        return F.conv2d(
            images, self.kernel, self.bias, self.stride, padding, self.dilation, self.groups
        )


def padding_for(conv: nn.Conv2d | PredictedConv2d, size: int) -> tuple[int, int, int, int]:
    """Give the padding (left, right, top, bottom) at which a kernel size keeps the output size.

    The window stays centred where the original one was. For an original with "same" padding and
    no dilation that is (s - 1) // 2 before and s // 2 after; where the original pads less than
    that, a value may be negative, which crops.
    """
    sides = []
    for axis in (1, 0):
        dilation = conv.dilation[axis]
        original_reach, reach = dilation * (conv.kernel_size[axis] - 1), dilation * (size - 1)
        if conv.padding == "same":
            before, after = original_reach // 2, original_reach - original_reach // 2
        elif conv.padding == "valid":
            before = after = 0
        else:
            before = after = conv.padding[axis]
        before += reach // 2 - original_reach // 2
        after += (reach - reach // 2) - (original_reach - original_reach // 2)
        sides += [before, after]
    return tuple(sides)


def resized_conv(conv: nn.Conv2d, size: int, generator: torch.Generator | None) -> nn.Module:
    """Make a fresh convolution of another kernel size, of classes of `torch.nn` alone.

    Odd sizes and unstrided "same" ones are one `nn.Conv2d`; the rest, such as an even size with a
    stride, is an `nn.Sequential` of `nn.ZeroPad2d` and `nn.Conv2d`. Kernels start with He's
    fan-out normal values, biases at zero.
    """
    sides = left, right, top, bottom = padding_for(conv, size)
    reach = [dilation * (size - 1) for dilation in conv.dilation]
    padder: nn.Module | None = None
    if left == right >= 0 and top == bottom >= 0:
        padding: tuple[int, int] | str = (top, left)
    elif set(conv.stride) == {1} and sides == (
        reach[1] // 2,
        reach[1] - reach[1] // 2,
        reach[0] // 2,
        reach[0] - reach[0] // 2,
    ):
        padding = "same"
    else:
        padder, padding = nn.ZeroPad2d(sides), (0, 0)
    resized = nn.utils.skip_init(
        nn.Conv2d,
        conv.in_channels,
        conv.out_channels,
        size,
        stride=conv.stride,
        padding=padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    with torch.no_grad():
        kernel = torch.empty(resized.weight.shape)
        nn.init.kaiming_normal_(kernel, mode="fan_out", nonlinearity="relu", generator=generator)
        resized.weight.copy_(kernel)
        if resized.bias is not None:
            resized.bias.zero_()
    return resized if padder is None else nn.Sequential(padder, resized)
