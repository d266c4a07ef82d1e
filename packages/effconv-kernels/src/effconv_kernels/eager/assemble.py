"""`assemble_kernels` in batched PyTorch: a product a layer."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from effconv_kernels.device_tables import Table, on_device, ready
from effconv_kernels.eager.precision import widened
from effconv_kernels.mask import gaussian, middle_of


@lru_cache(maxsize=64)
def _tap_table(sizes: tuple[int, ...], device: torch.device) -> Table:
    """Layer, row, column and size of each tap, `(4, sum s*s)`; rows and columns start at 1."""
    taps = [
        (layer, t // size + 1, t % size + 1, size)
        for layer, size in enumerate(sizes)
        for t in range(size * size)
    ]
    return on_device(list(zip(*taps, strict=True)), device)


def _taps(sizes: Sequence[int], soft_sizes: Tensor, centre: str) -> tuple[Tensor, Tensor, Tensor]:
    """Layer of each tap `(sum s*s,)`, its mask value (EffConv Eq. 6) and d mask / d v."""
    layer, rows, columns, size = ready(_tap_table(tuple(sizes), soft_sizes.device))
    v = soft_sizes[layer]
    middle = middle_of(v, size.to(v.dtype), centre)
    offset_i, offset_j = rows - middle, columns - middle
    mask = gaussian([offset_i, offset_j], v)
    slope = 2 * (offset_i**2 + offset_j**2) / v**3
    if centre == "paper":  # the middle moves too
        slope = slope + (offset_i + offset_j) / v**2
    return layer, mask, mask * slope


def _slices(sizes: Sequence[int], counts: Sequence[int]) -> list[tuple[slice, slice, slice]]:
    """Slices of the hidden states, the map's rows and the buffer for each layer."""

    def spans(lengths: list[int]) -> list[slice]:
        ends = list(accumulate(lengths))
        return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]

    taps = [size * size for size in sizes]
    values = [tap * count for tap, count in zip(taps, counts, strict=True)]
    return list(zip(spans(taps), spans(list(counts)), spans(values), strict=True))


def assemble_kernels(
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
    """Compute all masked kernels in one buffer; the mask is folded into the hidden states.

    Because it is folded in before the product, unmasked kernels are never stored.
    """
    hidden, weight, bias, soft_sizes = widened(hidden, weight, bias, soft_sizes)
    _, mask, _ = _taps(sizes, soft_sizes, centre)
    masked = hidden * mask.unsqueeze(1)
    slices = _slices(sizes, counts)
    buffer = hidden.new_empty(slices[-1][2].stop)
    for taps, rows, span in slices:
        out = buffer[span].view(rows.stop - rows.start, -1)
        torch.outer(bias[rows], mask[taps], out=out)
        out.addmm_(weight[rows], masked[taps].t())
    if last:
        buffer = _swap_taps_and_channels(buffer, slices, inner, out_of_last=False)
    return buffer.to(dtype)


def _swap_taps_and_channels(
    buffer: Tensor, slices: list, inner: Sequence[int], *, out_of_last: bool
) -> Tensor:
    """Transpose each layer's `(c_out, c_in, s * s)` to `(c_out, s * s, c_in)`, or back."""
    swapped = torch.empty_like(buffer)
    for (taps, rows, span), c_in in zip(slices, inner, strict=True):
        tap_count, c_out = taps.stop - taps.start, (rows.stop - rows.start) // c_in
        shape = (c_out, tap_count, c_in) if out_of_last else (c_out, c_in, tap_count)
        layer = buffer[span].view(shape).transpose(1, 2)
        swapped[span].view(layer.shape).copy_(layer)
    return swapped


def assemble_kernels_backward(
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
    """Return the gradients of `hidden`, `weight`, `bias` and `soft_sizes`."""
    dtype = hidden.dtype
    hidden, weight, bias, soft_sizes = widened(hidden, weight, bias, soft_sizes)
    grad = grad.to(hidden.dtype)
    layer, mask, mask_slope = _taps(sizes, soft_sizes, centre)
    masked, slices = hidden * mask.unsqueeze(1), _slices(sizes, counts)
    if last:
        grad = _swap_taps_and_channels(grad, slices, inner, out_of_last=True)
    grad_masked, grad_mask = torch.empty_like(hidden), torch.empty_like(mask)
    grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(bias)
    for taps, rows, span in slices:
        grad_kernel = grad[span].view(rows.stop - rows.start, -1)
        torch.mm(grad_kernel, masked[taps], out=grad_weight[rows])
        torch.mv(grad_kernel, mask[taps], out=grad_bias[rows])
        torch.mm(grad_kernel.t(), weight[rows], out=grad_masked[taps])
        torch.mv(grad_kernel.t(), bias[rows], out=grad_mask[taps])
    grad_mask += (grad_masked * hidden).sum(dim=1)
    grad_soft = torch.zeros_like(soft_sizes).index_add_(0, layer, grad_mask * mask_slope)
    grads = grad_masked * mask.unsqueeze(1), grad_weight, grad_bias, grad_soft
    return tuple(grad.to(dtype) for grad in grads)
