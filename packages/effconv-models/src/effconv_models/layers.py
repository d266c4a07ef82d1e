"""The layers that the models share, with initial values from a generator."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from effconv_models._validation import check_positive


def same_conv(
    c_in: int,
    c_out: int,
    kernel_size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    axes: int = 2,
    generator: torch.Generator | None = None,
) -> nn.Conv1d | nn.Conv2d:
    """Build a convolution whose output size does not depend on its kernel size.

    `(B, c_in, H, W)` becomes `(B, c_out, ceil(H / stride), ceil(W / stride))`, and a sequence
    `(B, c_in, T)` becomes `(B, c_out, ceil(T / stride))`. The input is padded on each axis with
    (s - 1) // 2 zeros before and s // 2 after. There is no bias. Initial kernels are the fan-out
    normal values of He et al. (2015, https://arxiv.org/abs/1502.01852).

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        kernel_size: size s of the kernel on each axis.
        stride: step of the window.
        groups: groups of channels; the initial kernels of each are scaled for its own number of
            outputs.
        axes: 2 for images, 1 for sequences.
        generator: source of the initial values, on the layer's device; None uses the global one.

    Returns:
        An `nn.Conv2d` (`nn.Conv1d`). With an even size and a stride its padding mode is
        `"constant"`, by which torch pads each side differently.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if a number is below 1, or the channels are not multiples of the groups.

    Examples:
        >>> same_conv(3, 8, 4, stride=2)(torch.zeros(1, 3, 15, 15)).shape
        torch.Size([1, 8, 8, 8])
    """
    numbers = {"c_in": c_in, "c_out": c_out, "stride": stride, "groups": groups}
    for what, value in numbers.items():
        check_positive(what, value)
    if c_in % groups or c_out % groups:
        raise ValueError(
            f"groups is {groups} beside {c_in} and {c_out} channels; pass what divides both"
        )
    before, after = (check_positive("kernel_size", kernel_size) - 1) // 2, kernel_size // 2
    if axes not in (1, 2):
        raise ValueError(f"axes is {axes!r}; pass 2 for images, or 1 for sequences")
    uneven = before != after and stride > 1
    padding: int | str = "same" if before != after and stride == 1 else before
    # Skipping torch's own initialisation leaves the global random state alone.
    conv = nn.utils.skip_init(
        (nn.Conv1d, nn.Conv2d)[axes - 1],
        c_in,
        c_out,
        kernel_size,
        stride=stride,
        padding=padding,
        groups=groups,
        bias=False,
        device=torch.get_default_device(),
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    if groups > 1:
        # torch counts the outputs of all groups, but an input feeds only those of its own group.
        with torch.no_grad():
            conv.weight.mul_(groups**0.5)
    if uneven:
        conv.padding_mode = "constant"
        conv._reversed_padding_repeated_twice = [before, after] * axes
    return conv


def linear(features: int, num_classes: int, *, generator: torch.Generator | None) -> nn.Linear:
    """Build a classifier of `(B, features)` with the initial values of `nn.Linear`."""
    classifier = nn.utils.skip_init(
        nn.Linear, features, num_classes, device=torch.get_default_device()
    )
    bound = features**-0.5
    nn.init.uniform_(classifier.weight, -bound, bound, generator=generator)
    nn.init.uniform_(classifier.bias, -bound, bound, generator=generator)
    return classifier


Block = Callable[[int, int, int, tuple[int, int]], nn.Module]


def make_stage(
    block: Block, c_in: int, c_out: int, stride: int, sizes: Sequence[tuple[int, int]]
) -> nn.Sequential:
    """Chain blocks, of which the first changes the channels and takes the stride.

    Args:
        block: builds a block from its input channels, output channels, stride and kernel sizes.
        c_in: channels of the stage's input.
        c_out: channels of its output.
        stride: stride of its first block; the others have 1.
        sizes: kernel sizes of the two convolutions of each block.
    """
    first, *others = sizes
    return nn.Sequential(
        block(c_in, c_out, stride, first), *(block(c_out, c_out, 1, pair) for pair in others)
    )
