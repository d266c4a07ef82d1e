"""Convolutions whose kernel size may change without changing the size of their output."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from effconv_core.layers.geometry import padding_for
from effconv_core.layers.kept_kernels import KeptKernels
from effconv_core.layers.own_forward import (
    geometry_of,
    own_forward,
    pads_itself,
    plain_class,
    run_with_kernel,
)
from effconv_core.layers.parametrized import (
    kernel_name,
    kernel_tensor,
    parametrization_of,
    through,
    with_kernel,
    without_kernel,
)

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def take_parts(conv: nn.Module, other: nn.Module) -> None:
    """Register the parameters, buffers and modules that a class of its own has beside torch's."""
    for name, parameter in other._parameters.items():
        if name not in ("weight", "bias"):
            conv.register_parameter(name, parameter)
    for name, values in other._buffers.items():
        if name not in ("weight", "bias", "like"):
            conv.register_buffer(name, values, name not in other._non_persistent_buffers_set)
    for name, module in other._modules.items():
        if name != "parametrizations":
            conv.add_module(name, module)


class PredictedConv(nn.Module):
    """A convolution whose kernel is set from outside before each forward pass.

    The forward of a subclass, or of a transposed layer, runs on what the found layer would have.
    The kernel of a parametrized layer passes through its parametrization.

    Args:
        conv: the original; its bias and geometry are kept, its weight is not.

    Attributes:
        kind: the class of the original. `predicted` makes layers that are instances of it.
        becomes: the class of the layer that is found, which a parametrization may have changed.
        kernel_name: see there.
        pads_itself: see `pads_itself`.
        kernel: in the layout of the original's weight, or None outside of a forward pass.
        kept_kernels: those of passes that gradient checkpointing may run again.
        has_run: whether the layer has run, where it is looked at.
        has_gradient: whether it has done so where gradients are computed.
        trainable: whether the original's weight requires gradients, as that of a plain layer will.
        like: an empty tensor of the layer's device and dtype.
    """

    def __init__(self, conv: Conv) -> None:
        nn.Module.__init__(self)
        self.kind, self.becomes = type_before_parametrizations(conv), type(conv)
        self.pads_itself, self.kernel_name = pads_itself(conv), kernel_name(conv)
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        self.kernel_size, self.padding = conv.kernel_size, conv.padding
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.padding_mode = conv.padding_mode
        self._reversed_padding_repeated_twice = conv._reversed_padding_repeated_twice
        self.transposed, self.output_padding = conv.transposed, conv.output_padding
        take_parts(self, conv)
        if (parts := parametrization_of(conv)) is not None:
            shell = without_kernel(parts, self.kernel_name)
            self.parametrizations = nn.ModuleDict({"weight": shell})
        own = kernel_tensor(conv)
        self.trainable, self.training = own.requires_grad, conv.training
        if "bias" in conv._buffers:
            persistent = "bias" not in conv._non_persistent_buffers_set
            self.register_buffer("bias", conv.bias, persistent)
        else:
            self.bias = conv.bias
        # Has the device and the dtype of the kernels, also after the network was moved.
        self.register_buffer("like", own.detach()[:0].clone(), persistent=False)
        self.kernel: Tensor | None = None
        self.kept_kernels = KeptKernels()
        self.has_run = self.has_gradient = False

    @property
    def weight(self) -> Tensor | None:
        """The weight in this forward pass, for networks that look at their layers' weights."""
        parts, kernel = parametrization_of(self), self._present_kernel()
        if parts is None or kernel is None:
            return kernel
        return through(parts, self.kernel_name, kernel)

    def end_pass(self) -> None:
        """Forget the kernel, but for a backward pass that runs the layer again."""
        if self.kernel is not None:
            self.kept_kernels.keep(self.kernel)
        self.kernel = None

    def _present_kernel(self) -> Tensor | None:
        return self.kept_kernels.in_backward() if self.kernel is None else self.kernel

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Convolve `(B, c_in, *space)`; the output size is that of the original.

        Args:
            *args: those of the original's forward.
            **kwargs: the same, by name.

        Raises:
            ValueError: if the input is too small for the padding mode at this kernel size.
            RuntimeError: if no kernel is set, because the layer runs outside of the whole network.
        """
        if not own_forward(self.kind):
            return self._convolve(*args, **kwargs)
        self._note_run(self._present_kernel())
        return run_with_kernel(self, self.weight, *args, **kwargs)

    def _convolve(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        # A class that is made here is found by no name.
        return _empty, (self.kind,), vars(self)

    def _note_run(self, kernel: Tensor | None) -> None:
        if kernel is None:
            raise RuntimeError(
                "a searched layer has kernels only in forward passes of its SearchableCNN, and "
                "was run outside of one, as gradient checkpointing with use_reentrant=True does in "
                "the backward pass; pass use_reentrant=False"
            )
        self.has_run = True
        if torch.is_grad_enabled():  # written, never read: torch.compile would compile again
            self.has_gradient = True

    def _conv_forward(self, images: Tensor, kernel: Tensor | None, bias: Tensor | None) -> Tensor:
        """Convolve as `forward` does; so do methods of the original that the network has kept."""
        self._note_run(kernel)
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


@cache
def _predicted_class(kind: type[Conv]) -> type[PredictedConv]:
    return type(f"Predicted{kind.__name__}", (PredictedConv, kind), {})


def _empty(kind: type[Conv]) -> PredictedConv:
    made = _predicted_class(kind)
    return made.__new__(made)


def predicted(conv: Conv) -> PredictedConv:
    """Return a `PredictedConv` that is an instance of the original's class too."""
    return _predicted_class(type(conv))(conv)


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
    weights = [kernel_tensor(conv) for conv in convs]
    dtype = torch.float32
    for weight in weights:
        dtype = torch.promote_types(dtype, weight.dtype)
    return torch.empty(0, dtype=dtype, device=weights[0].device)


def resized_conv(
    conv: Conv, kernel_shape: Sequence[int], generator: torch.Generator | None
) -> Conv:
    """Build a freshly initialised convolution with another kernel shape, as `conv_of` does.

    The kernel starts with He's fan-out normal values, the bias at zero.
    """
    kernel = torch.empty((*channels_of(conv), *kernel_shape), device="cpu")
    nn.init.kaiming_normal_(kernel, mode="fan_out", nonlinearity="relu", generator=generator)
    # torch counts the outputs of all groups, but an input feeds only those of its own group.
    kernel *= conv.groups**0.5
    bias = None if conv.bias is None else torch.zeros_like(conv.bias)
    return conv_of(conv, kernel.to(_like(conv)), bias)


def channels_of(conv: Conv | PredictedConv) -> tuple[int, int]:
    """Return the first two lengths of a layer's weight.

    They are `(c_out, c_in / groups)`, and `(c_in, c_out / groups)` of a transposed layer.
    """
    channels = conv.out_channels, conv.in_channels
    first, second = reversed(channels) if conv.transposed else channels
    return first, second // conv.groups


def conv_of(conv: Conv | PredictedConv, kernel: Tensor, bias: Tensor | None) -> Conv:
    """Build a convolution of the original's class with another kernel.

    It shares what that class has beside torch's own parameters, and what a parametrization has
    beside the kernel. It is in the mode of the original, and requires gradients where that does.
    How it pads, see `centred` and `transposed`.

    Args:
        conv: the original, or the layer that replaced it; its geometry is kept.
        kernel: in the layout of the original's weight; copied. A parametrization computes the
            layer's weight from it.
        bias: `(c_out,)`, copied; None if the original has none.
    """
    is_predicted = isinstance(conv, PredictedConv)
    geometry = geometry_of(conv, kernel.shape[2:])
    mode = geometry.get("padding_mode", conv.padding_mode)
    resized = nn.utils.skip_init(
        plain_class(type(conv)),
        conv.in_channels,
        conv.out_channels,
        geometry["kernel_size"],
        stride=conv.stride,
        padding=geometry["padding"],
        dilation=conv.dilation,
        groups=conv.groups,
        bias=bias is not None,
        padding_mode="zeros" if mode == "constant" else mode,
        device=kernel.device,
        dtype=kernel.dtype,
    )
    vars(resized).update(geometry)
    with torch.no_grad():
        resized.weight.copy_(kernel)
        if bias is not None:
            resized.bias.copy_(bias)
    trainable = conv.trainable if is_predicted else kernel_tensor(conv).requires_grad
    resized.weight.requires_grad_(trainable)
    if "bias" in conv._buffers:
        values = resized.bias.detach()
        del resized.bias
        persistent = "bias" not in conv._non_persistent_buffers_set
        resized.register_buffer("bias", values, persistent)
    elif bias is not None:
        resized.bias.requires_grad_(conv.bias.requires_grad)
    take_parts(resized, conv)
    if (parts := parametrization_of(conv)) is not None:
        name = conv.kernel_name if is_predicted else kernel_name(conv)
        own = with_kernel(parts, name, resized._parameters.pop("weight"))
        resized.parametrizations = nn.ModuleDict({"weight": own})
    vars(resized).update(_kept(conv))
    resized.__class__ = conv.becomes if is_predicted else type(conv)
    resized.training = conv.training
    return resized


def _like(conv: Conv | PredictedConv) -> Tensor:
    """Return a tensor of the device and dtype of a layer's kernel."""
    return conv.like if isinstance(conv, PredictedConv) else kernel_tensor(conv)


_PLAIN = nn.Conv1d(1, 1, 1, device="meta")  # draws no values
ATTRIBUTES = vars(_PLAIN).keys() | vars(PredictedConv(_PLAIN)).keys()
RESERVED = ATTRIBUTES - vars(_PLAIN).keys() | {"like"}
"""What a searched layer has beside a plain one, and so no original may have."""


def _kept(conv: nn.Module) -> dict[str, Any]:
    """Return what others, such as its own class, have set on a convolution."""
    return {name: value for name, value in vars(conv).items() if name not in ATTRIBUTES}


def take_places(replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Turn convolutions into others in place, wherever something holds them.

    A layer stays the same object, so that lists, functions and bound methods that a network reaches
    it by lead to what it has become. What others have set on it, it keeps.

    Args:
        replacements: a convolution to what it becomes, which is not to be used afterwards.
    """
    for conv, other in replacements.items():
        kept = _kept(conv)
        conv.__class__ = other.__class__
        conv.__dict__ = {**kept, **vars(other)}
