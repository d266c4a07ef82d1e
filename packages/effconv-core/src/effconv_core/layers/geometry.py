"""What a convolution of another kernel size has in place of the original's attributes."""

from collections.abc import Sequence
from typing import Any


def padding_for(conv: Any, kernel_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the padding that keeps the output size with this kernel, in the order of `F.pad`.

    The window stays centred where the original one was. For an original with "same" padding and
    no dilation that is (s - 1) // 2 before and s // 2 after; where the original pads less than
    that, a value may be negative, which crops.

    Args:
        conv: the original, or the layer that replaced it.
        kernel_shape: taps of the new kernel, one number for each axis.
    """
    sides = []
    for axis in reversed(range(len(kernel_shape))):
        dilation = conv.dilation[axis]
        original_reach = dilation * (conv.kernel_size[axis] - 1)
        reach = dilation * (kernel_shape[axis] - 1)
        if conv.padding_mode != "zeros":  # then this holds, whatever `padding` says
            place = 2 * (len(kernel_shape) - 1 - axis)
            before, after = conv._reversed_padding_repeated_twice[place : place + 2]
        elif conv.padding == "same":
            before, after = original_reach // 2, original_reach - original_reach // 2
        elif conv.padding == "valid":
            before = after = 0
        else:
            before = after = conv.padding[axis]
        before += reach // 2 - original_reach // 2
        after += (reach - reach // 2) - (original_reach - original_reach // 2)
        sides += [before, after]
    return tuple(sides)


def kernel_shape_of(conv: Any, size: int | Sequence[int]) -> tuple[int, ...]:
    """Return the kernel shape (taps per axis) for a plan's size.

    One number is the size of every axis along which the original has more than one tap, or of all
    axes if it has a single tap; a sequence has one number for each axis.

    Raises:
        ValueError: if the length of the sequence is not the kernel's number of axes.
    """
    axes = len(conv.kernel_size)
    if isinstance(size, int):
        point = max(conv.kernel_size) == 1
        return tuple(size if taps > 1 or point else 1 for taps in conv.kernel_size)
    if len(size) != axes:
        raise ValueError(
            f"size {tuple(size)} has {len(size)} numbers; the kernel has {axes} axes, so pass one "
            "number, or one for each axis"
        )
    return tuple(size)


def centred(conv: Any, kernel_shape: Sequence[int]) -> dict[str, Any]:
    """Return what keeps the output size with this kernel, by attribute of a convolution.

    `torch.nn` offers no padding that differs between the sides, nor one that crops, which an even
    size with a stride, for example, needs. Its convolutions can do both: what they give `F.pad` is
    then set here, and the padding mode "zeros" is "constant", which is the name that `F.pad` has
    for it; `padding` holds what comes before, at least 0.

    Args:
        conv: the original, or the layer that replaced it.
        kernel_shape: taps of the new kernel, one number for each axis.
    """
    sides = padding_for(conv, kernel_shape)
    befores, afters = sides[-2::-2], sides[::-2]
    reaches = [d * (size - 1) for d, size in zip(conv.dilation, kernel_shape, strict=True)]
    same = [(reach // 2, reach - reach // 2) for reach in reaches]
    padding: tuple[int, ...] | str = tuple(max(before, 0) for before in befores)
    offered = befores == afters and min(befores) >= 0
    if not offered and set(conv.stride) == {1} and list(zip(befores, afters, strict=True)) == same:
        padding, offered = "same", True
    mode = conv.padding_mode
    if mode in ("zeros", "constant"):
        mode = "zeros" if offered else "constant"
    return {
        "kernel_size": tuple(kernel_shape),
        "padding": padding,
        "padding_mode": mode,
        "_reversed_padding_repeated_twice": list(sides),
    }


def transposed(conv: Any, kernel_shape: Sequence[int]) -> dict[str, Any] | None:
    """Return what keeps the output size of a transposed convolution with this kernel, by attribute.

    A transposed convolution crops its output by `padding` at both sides, and gives `output_padding`
    of it back at the end, which is less than the stride or the dilation. The window stays centred
    where the original one was, to half a tap.

    Args:
        conv: the original, or the layer that replaced it.
        kernel_shape: taps of the new kernel, one number for each axis.

    Returns:
        The attributes; None where no padding gives the original's output size.
    """
    padding, output_padding = [], []
    for axis, taps in enumerate(kernel_shape):
        original_reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
        reach = conv.dilation[axis] * (taps - 1)
        for up in (0, 1):
            more = (reach + up) // 2 - (original_reach + up) // 2
            before = conv.padding[axis] + more
            after = conv.output_padding[axis] + 2 * more - (reach - original_reach)
            if before >= 0 and 0 <= after < max(conv.stride[axis], conv.dilation[axis]):
                break
        else:
            return None
        padding.append(before)
        output_padding.append(after)
    return {
        "kernel_size": tuple(kernel_shape),
        "padding": tuple(padding),
        "output_padding": tuple(output_padding),
    }
