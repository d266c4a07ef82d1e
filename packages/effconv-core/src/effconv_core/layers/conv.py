"""Convolutions whose kernel size may change without changing the size of their output."""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CLASSES = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class PredictedConv(nn.Module):
    """A convolution whose kernel is set from outside before each forward pass.

    Args:
        conv: the original; its bias and geometry are kept, its weight is not.

    Attributes:
        kernel: `(c_out, c_in / groups, *taps)`, or None outside of a forward pass.
        trainable: whether the original's weight requires gradients, as that of a plain layer will.
        like: an empty tensor of the layer's device and dtype.
    """

    def __init__(self, conv: Conv) -> None:
        super().__init__()
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.padding = conv.kernel_size, conv.padding
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.padding_mode = conv.padding_mode
        self._reversed_padding_repeated_twice = conv._reversed_padding_repeated_twice
        self.trainable, self.training = conv.weight.requires_grad, conv.training
        if "bias" in conv._buffers:
            persistent = "bias" not in conv._non_persistent_buffers_set
            self.register_buffer("bias", conv.bias, persistent)
        else:
            self.bias = conv.bias
        # Has the device and the dtype of the kernels, also after the network was moved.
        self.register_buffer("like", conv.weight.detach()[:0].clone(), persistent=False)
        self.kernel: Tensor | None = None
        self.has_run = False

    @property
    def weight(self) -> Tensor | None:
        """The kernel of this forward pass, for networks that look at their layers' weights."""
        return self.kernel

    def forward(self, images: Tensor) -> Tensor:
        """Convolve `(B, c_in, *space)`; the output size is that of the original.

        Raises:
            ValueError: if the input is too small for the padding mode at this kernel size.
            RuntimeError: if no kernel is set, because the layer runs outside of the whole network.
        """
        return self._conv_forward(images, self.weight, self.bias)

    def _conv_forward(self, images: Tensor, kernel: Tensor | None, bias: Tensor | None) -> Tensor:
        """Convolve as `forward` does; so do methods of the original that the network has kept."""
        if kernel is None:
            raise RuntimeError(
                "a searched layer has kernels only in forward passes of its SearchableCNN, and "
                "was run outside of one, as gradient checkpointing does in the backward pass; turn "
                "it off for the search"
            )
        self.has_run = True
        sides = padding_for(self, kernel.shape[2:])
        befores, afters = sides[-2::-2], sides[::-2]
        padding: tuple[int, ...] = (0,) * len(befores)
        if self.padding_mode != "zeros":
            self._check_room(images, kernel, sides)
            images = F.pad(images, sides, self.padding_mode)
        elif befores != afters or min(befores) < 0:
            images = F.pad(images, sides)
        else:
            padding = befores
        convolve = CONVOLVE[len(befores)]
        return convolve(images, kernel, bias, self.stride, padding, self.dilation, self.groups)

    def _check_room(self, images: Tensor, kernel: Tensor, sides: Sequence[int]) -> None:
        room = {"reflect": 1, "circular": 0}.get(self.padding_mode)
        if room is None:
            return
        # What is cropped cannot be reflected.
        pairs = list(zip(sides[-2::-2], sides[::-2], strict=True))
        lengths = images.shape[-len(pairs) :]
        space = tuple(n + sum(min(s, 0) for s in p) for n, p in zip(lengths, pairs, strict=True))
        widest = tuple(max(0, *pair) for pair in pairs)
        if any(w > n - room for w, n in zip(widest, space, strict=True)):
            raise ValueError(
                f"a kernel of {tuple(kernel.shape[2:])} needs {widest} pixels of "
                f"{self.padding_mode!r} padding, more than an input of {space} can give; allow "
                "this layer smaller sizes or pass larger inputs"
            )


def kernels_like(model: nn.Module, convs: Iterable[Conv]) -> Tensor:
    """Return an empty tensor of the device and dtype in which the kernels of layers are made.

    That is at least float32, in which sizes, masks and costs are exact enough; a layer casts its
    kernel to its own.

    Raises:
        ValueError: if a tensor of the model is on the meta device.
    """
    tensors = (*model.named_parameters(), *model.named_buffers())
    if (meta := next((name for name, t in tensors if t.is_meta), None)) is not None:
        raise ValueError(
            f"{meta!r} of the {type(model).__name__} is on the meta device and has no values; "
            "build the model on a device, or load its weights first"
        )
    weights = [conv.weight for conv in convs]
    dtype = torch.float32
    for weight in weights:
        dtype = torch.promote_types(dtype, weight.dtype)
    return torch.empty(0, dtype=dtype, device=weights[0].device)


def padding_for(conv: Conv | PredictedConv, kernel_shape: Sequence[int]) -> tuple[int, ...]:
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


def kernel_shape_of(conv: Conv, size: int | Sequence[int]) -> tuple[int, ...]:
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


def resized_conv(
    conv: Conv, kernel_shape: Sequence[int], generator: torch.Generator | None
) -> Conv:
    """Build a freshly initialised convolution with another kernel shape, as `conv_of` does.

    The kernel starts with He's fan-out normal values, the bias at zero.
    """
    shape = (conv.out_channels, conv.in_channels // conv.groups, *kernel_shape)
    kernel = torch.empty(shape)
    nn.init.kaiming_normal_(kernel, mode="fan_out", nonlinearity="relu", generator=generator)
    # torch counts the outputs of all groups, but an input feeds only those of its own group.
    kernel *= conv.groups**0.5
    bias = None if conv.bias is None else torch.zeros_like(conv.bias)
    return conv_of(conv, kernel.to(conv.weight), bias)


def conv_of(conv: Conv | PredictedConv, kernel: Tensor, bias: Tensor | None) -> Conv:
    """Build a convolution of `torch.nn` with another kernel.

    `torch.nn` offers no padding that differs between the sides, nor one that crops, which an even
    size with a stride, for example, needs. Its convolutions can do both: what they give `F.pad` is
    then set here, and the padding mode "zeros" is "constant", which is the name that `F.pad` has
    for it; `padding` holds what comes before, at least 0. The layer is in the mode of the original,
    and requires gradients where that does.

    Args:
        conv: the original, or the layer that replaced it; its geometry is kept.
        kernel: `(c_out, c_in / groups, *taps)`; copied.
        bias: `(c_out,)`, copied; None if the original has none.
    """
    kernel_shape, axes = tuple(kernel.shape[2:]), kernel.dim() - 2
    sides = padding_for(conv, kernel_shape)
    befores, afters = sides[-2::-2], sides[::-2]
    reaches = [d * (size - 1) for d, size in zip(conv.dilation, kernel_shape, strict=True)]
    same = [(reach // 2, reach - reach // 2) for reach in reaches]
    padding: tuple[int, ...] | str = tuple(max(before, 0) for before in befores)
    offered = befores == afters and min(befores) >= 0
    if not offered and set(conv.stride) == {1} and list(zip(befores, afters, strict=True)) == same:
        padding, offered = "same", True
    resized = nn.utils.skip_init(
        CLASSES[axes],
        conv.in_channels,
        conv.out_channels,
        kernel_shape,
        stride=conv.stride,
        padding=padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=bias is not None,
        padding_mode="zeros" if conv.padding_mode == "constant" else conv.padding_mode,
        device=kernel.device,
        dtype=kernel.dtype,
    )
    if not offered:
        resized._reversed_padding_repeated_twice = list(sides)
        if resized.padding_mode == "zeros":
            resized.padding_mode = "constant"
    with torch.no_grad():
        resized.weight.copy_(kernel)
        if bias is not None:
            resized.bias.copy_(bias)
    trainable = conv.trainable if isinstance(conv, PredictedConv) else conv.weight.requires_grad
    resized.weight.requires_grad_(trainable)
    if "bias" in conv._buffers:
        values = resized.bias.detach()
        del resized.bias
        persistent = "bias" not in conv._non_persistent_buffers_set
        resized.register_buffer("bias", values, persistent)
    elif bias is not None:
        resized.bias.requires_grad_(conv.bias.requires_grad)
    return resized.train(conv.training)


_PLAIN = nn.Conv1d(1, 1, 1, device="meta")  # draws no values
ATTRIBUTES = vars(_PLAIN).keys() | vars(PredictedConv(_PLAIN)).keys()


def take_places(replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Turn convolutions into others in place, wherever something holds them.

    A layer stays the same object, so that lists, functions and bound methods that a network reaches
    it by lead to what it has become. What others have set on it, it keeps.

    Args:
        replacements: a convolution to what it becomes, which is not to be used afterwards.
    """
    for conv, other in replacements.items():
        kept = {name: value for name, value in vars(conv).items() if name not in ATTRIBUTES}
        conv.__class__ = other.__class__
        conv.__dict__ = {**kept, **vars(other)}
