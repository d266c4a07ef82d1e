"""`assemble_kernels`: hidden states to masked convolution kernels, all layers in one call."""

from collections.abc import Iterable
from math import isqrt

# PyTorch 2.6 reads an operator's schema only from typing's Sequence.
from typing import Any, Literal, Sequence  # noqa: UP035

import torch
from torch import Tensor

from effconv_kernels.dispatch import form_of
from effconv_kernels.validation import (
    LIMIT,
    check_dtype,
    check_shape,
    check_tensors,
    counts_of,
    uncast,
)
from effconv_kernels.vmap import folded


def assemble_kernels(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor,
    *,
    sizes: Sequence[int],
    channels: Sequence[tuple[int, int]],
    centre: Literal["paper", "aligned"] = "paper",
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> list[Tensor]:
    """Turn hidden states into masked kernels (EffConv Eq. 5 to 7).

    Layer l's state at timestep t is mapped linearly to the c_out * c_in values of kernel
    position (t // s, t % s), which are multiplied by the mask of Eq. 6,
    `exp(-((i - c)^2 + (j - c)^2) / v^2)` with i, j counted from 1.

    Args:
        hidden: `(sum s_l^2, H)`, the states of `gru_unroll`, layer after layer.
        weight: `(sum c_out c_in, H)`, the maps of all layers, one below the other.
        bias: `(sum c_out c_in,)`.
        soft_sizes: `(L,)`, v, each above 0; not checked, because that would wait for the device:
            at 0 values and gradients are not finite.
        sizes: L kernel sizes s, from 1 to 256.
        channels: L pairs `(c_out, c_in)`; for a grouped convolution c_in is that of one group.
        centre: centre of the mask: `"paper"` is v / 2, as in Eq. 6; `"aligned"` is
            (s + 1) / 2, the middle of the kernel.
        dtype: dtype of the kernels; None takes that of `hidden`. Sums are in float32 or wider.
        memory_format: `torch.contiguous_format` or `torch.channels_last`.

    Under autocast, bfloat16 and float16 arguments are converted to float32.

    Returns:
        L kernels `(c_out, c_in, s, s)` in that memory format, views of one buffer.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if shapes, dtypes, devices, counts or the centre do not fit together.
        NotImplementedError: if a forward-mode derivative is requested.

    Examples:
        >>> kernels = assemble_kernels(
        ...     torch.ones(13, 4), torch.ones(10, 4), torch.zeros(10), torch.tensor([3.2, 1.7]),
        ...     sizes=[3, 2], channels=[(2, 3), (4, 1)],
        ... )
        >>> [tuple(kernel.shape) for kernel in kernels]
        [(2, 3, 3, 3), (4, 1, 2, 2)]
    """
    name = "assemble_kernels"
    hidden, weight, bias, soft_sizes = uncast(hidden, weight, bias, soft_sizes)
    check_tensors(
        name,
        {
            "hidden": (hidden, "(sum s^2, H)"),
            "weight": (weight, "(sum c_out c_in, H)"),
            "bias": (bias, "(sum c_out c_in,)"),
            "soft_sizes": (soft_sizes, "(L,)"),
        },
    )
    layers = soft_sizes.shape[0]
    if layers < 1:
        raise ValueError(f"{name}: soft_sizes is empty; pass one soft size for each layer")
    sizes = counts_of(name, "sizes", sizes, layers, isqrt(LIMIT))
    if not isinstance(channels, Iterable):
        raise TypeError(
            f"{name}: channels is a {type(channels).__name__}; pass a sequence of pairs "
            "(c_out, c_in)"
        )
    channels = list(channels)
    for layer, pair in enumerate(channels):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(
                f"{name}: channels[{layer}] is {pair!r}; pass a pair (c_out, c_in) for each layer"
            )
    outer = counts_of(name, "channels (out)", [c_out for c_out, _ in channels], layers)
    inner = counts_of(name, "channels (in)", [c_in for _, c_in in channels], layers)
    counts = [c_out * c_in for c_out, c_in in zip(outer, inner, strict=True)]
    H = hidden.shape[1]
    if H < 1:
        raise ValueError(
            f"{name}: hidden has shape {tuple(hidden.shape)}; a state must have at least one unit, "
            "so pass (sum s^2, H) with H of at least 1"
        )
    positions = sum(size * size for size in sizes)
    check_shape(name, "hidden", hidden, "(sum s^2, H)", (positions, H))
    check_shape(name, "weight", weight, "(sum c_out c_in, H)", (sum(counts), H))
    check_shape(name, "bias", bias, "(sum c_out c_in,)", (sum(counts),))
    if centre not in ("paper", "aligned"):
        raise ValueError(f"{name}: centre is {centre!r}; pass 'paper' or 'aligned'")
    if memory_format not in (torch.contiguous_format, torch.channels_last):
        raise ValueError(
            f"{name}: memory_format is {memory_format}; pass torch.contiguous_format or "
            "torch.channels_last"
        )
    dtype = hidden.dtype if dtype is None else dtype
    check_dtype(name, "dtype is", dtype)
    last = memory_format == torch.channels_last
    buffer = _assemble_kernels(
        hidden, weight, bias, soft_sizes, sizes, counts, inner, centre, last, dtype
    )
    lengths = [count * size * size for count, size in zip(counts, sizes, strict=True)]
    kernels = []
    for part, c_out, c_in, size in zip(buffer.split(lengths), outer, inner, sizes, strict=True):
        if last:
            kernels.append(part.view(c_out, size, size, c_in).permute(0, 3, 1, 2))
        else:
            kernels.append(part.view(c_out, c_in, size, size))
    return kernels


@torch.library.custom_op("effconv::assemble_kernels", mutates_args=())
def _assemble_kernels(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor,
    sizes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    centre: str,
    last: bool,
    dtype: torch.dtype,
) -> Tensor:
    form = form_of("assemble", hidden, hidden.shape[1])
    with torch.autocast(hidden.device.type, enabled=False), torch.cuda.device_of(hidden):
        return form.assemble_kernels(
            hidden, weight, bias, soft_sizes, sizes, counts, inner, centre, last, dtype
        )


@_assemble_kernels.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor,
    sizes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    centre: str,
    last: bool,
    dtype: torch.dtype,
) -> Tensor:
    total = sum(count * size * size for count, size in zip(counts, sizes, strict=True))
    return hidden.new_empty(total, dtype=dtype)


@torch.library.custom_op("effconv::assemble_kernels_backward", mutates_args=())
def _assemble_kernels_backward(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor,
    sizes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    centre: str,
    last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    form = form_of("assemble", hidden, hidden.shape[1])
    with torch.autocast(hidden.device.type, enabled=False), torch.cuda.device_of(hidden):
        return form.assemble_kernels_backward(
            grad, hidden, weight, bias, soft_sizes, sizes, counts, inner, centre, last
        )


@_assemble_kernels_backward.register_fake
def _(
    grad: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor,
    sizes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    centre: str,
    last: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (hidden, weight, bias, soft_sizes))


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.sizes, ctx.counts, ctx.inner, ctx.centre, ctx.last, _ = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple:
    grads = _assemble_kernels_backward(
        grad.contiguous(),
        *ctx.saved_tensors,
        ctx.sizes,
        ctx.counts,
        ctx.inner,
        ctx.centre,
        ctx.last,
    )
    return *grads, None, None, None, None, None, None


_assemble_kernels.register_autograd(_backward, setup_context=_save)


@_assemble_kernels.register_vmap
def _(info: Any, in_dims: tuple, *arguments: Any) -> tuple[Tensor, int]:
    *tensors, sizes, counts, inner, centre, last, dtype = arguments
    B = info.batch_size
    tensors = folded(tensors, in_dims, B)
    kernels = _assemble_kernels(*tensors, sizes * B, counts * B, inner * B, centre, last, dtype)
    return kernels.unflatten(0, (B, -1)), 0


@_assemble_kernels_backward.register_vmap
def _(info: Any, in_dims: tuple, *arguments: Any) -> tuple[tuple, tuple]:
    *tensors, sizes, counts, inner, centre, last = arguments
    B = info.batch_size
    tensors = folded(tensors, in_dims, B)
    grads = _assemble_kernels_backward(*tensors, sizes * B, counts * B, inner * B, centre, last)
    return tuple(grad.unflatten(0, (B, -1)) for grad in grads), (0, 0, 0, 0)
