"""`assemble_kernels` in batched PyTorch: a product a layer."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, product
from typing import NamedTuple

import torch
from torch import Tensor

from effconv_kernels.device_tables import Table, on_device, ready
from effconv_kernels.eager.precision import widened
from effconv_kernels.shapes import taps_of


class Taps(NamedTuple):
    """Tables of N taps along A axes, those that a soft size rules in any layer."""

    rules: Table
    """`(A, N)`: index of the soft size that rules the axis at this tap; 0 if none does."""
    twice: Table
    """`(2, A, N)`: twice the tap's place along the axis, from 2 on, and the axis' length + 1."""
    unruled: Table | None
    """`(A, N)`: 1 where no soft size rules the axis; None if that is nowhere so."""


@lru_cache(maxsize=64)
def _tap_tables(
    shapes: tuple[int, ...], rules: tuple[int, ...], device: torch.device
) -> Taps | None:
    """Build the tables; None if no axis is ruled."""
    axes = [axis for axis in range(3) if any(rule >= 0 for rule in rules[axis::3])]
    if not axes:
        return None
    indices, places, lengths, free = [], [], [], []
    for axis in axes:
        index, place, length = [], [], []
        for first in range(0, len(shapes), 3):
            shape, rule = shapes[first : first + 3], rules[first + axis]
            own = [taps[axis] for taps in product(*map(range, shape))]
            place += [2 * (tap + 1) for tap in own]
            index += [rule] * len(own)
            length += [shape[axis] + 1] * len(own)
        indices.append([max(rule, 0) for rule in index])
        free.append([int(rule < 0) for rule in index])
        places.append(place)
        lengths.append(length)
    unruled = on_device(free, device) if any(map(any, free)) else None
    return Taps(on_device(indices, device), on_device([places, lengths], device), unruled)


def _mask(
    shapes: Sequence[int], rules: Sequence[int], soft_sizes: Tensor | None, centre: str
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the mask of each tap `(N,)` (EffConv Eq. 6), and by axis its relative slope.

    The slopes `(A, N)` are d mask / d v over the mask; the third result has the index of each v.
    None if there is no mask.
    """
    if soft_sizes is None:
        return None
    tables = _tap_tables(tuple(shapes), tuple(rules), soft_sizes.device)
    if tables is None:
        return None
    index = ready(tables.rules)
    v = soft_sizes[index]
    twice, lengths = ready(tables.twice).to(v.dtype)
    paper = centre == "paper"
    offset = twice - (v if paper else lengths)  # twice i - c
    if tables.unruled is not None:
        unruled = ready(tables.unruled).bool()
        offset, v = offset.masked_fill(unruled, 0), v.masked_fill(unruled, 1)
    half = offset / v
    # exp(-((i - c) / v)^2); by v, the centre v / 2 moves too.
    mask = half.square().sum(0).mul_(-0.25).exp_()
    slope = half * (half + 1 if paper else half) / (2 * v)
    return mask, slope, index


def _slices(shapes: Sequence[int], counts: Sequence[int]) -> list[tuple[slice, slice, slice]]:
    """Return slices of the hidden states, the map's rows and the buffer for each layer."""

    def spans(lengths: list[int]) -> list[slice]:
        ends = list(accumulate(lengths))
        return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]

    taps = taps_of(shapes)
    values = [tap * count for tap, count in zip(taps, counts, strict=True)]
    return list(zip(spans(taps), spans(list(counts)), spans(values), strict=True))


def assemble_kernels(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor | None,
    shapes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    rules: Sequence[int],
    centre: str,
    last: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Compute all masked kernels in one buffer; the mask is folded into the hidden states.

    Because it is folded in before the product, unmasked kernels are never stored.
    """
    hidden, weight, bias = widened(hidden, weight, bias)
    if soft_sizes is not None:
        (soft_sizes,) = widened(soft_sizes)
    masked, mask, _, _ = _masked(hidden, soft_sizes, shapes, rules, centre)
    slices = _slices(shapes, counts)
    buffer = hidden.new_empty(slices[-1][2].stop)
    for taps, rows, span in slices:
        out = buffer[span].view(rows.stop - rows.start, -1)
        torch.outer(bias[rows], mask[taps], out=out)
        out.addmm_(weight[rows], masked[taps].t())
    if last:
        buffer = _swap_taps_and_channels(buffer, slices, inner, out_of_last=False)
    return buffer.to(dtype)


def _masked(
    hidden: Tensor,
    soft_sizes: Tensor | None,
    shapes: Sequence[int],
    rules: Sequence[int],
    centre: str,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return masked states, and the results of `_mask`; a missing mask is 1."""
    found = _mask(shapes, rules, soft_sizes, centre)
    if found is None:
        return hidden, hidden.new_ones(len(hidden)), None, None
    return hidden * found[0].unsqueeze(1), *found


def _swap_taps_and_channels(
    buffer: Tensor, slices: list, inner: Sequence[int], *, out_of_last: bool
) -> Tensor:
    """Transpose each layer's `(c_out, c_in, taps)` to `(c_out, taps, c_in)`, or back."""
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
    soft_sizes: Tensor | None,
    shapes: Sequence[int],
    counts: Sequence[int],
    inner: Sequence[int],
    rules: Sequence[int],
    centre: str,
    last: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    """Return those gradients of `hidden`, `weight`, `bias` and `soft_sizes` that are needed."""
    dtype = hidden.dtype
    hidden, weight, bias = widened(hidden, weight, bias)
    if soft_sizes is not None:
        (soft_sizes,) = widened(soft_sizes)
    grad = grad.to(hidden.dtype)
    masked, mask, slope, index = _masked(hidden, soft_sizes, shapes, rules, centre)
    slices = _slices(shapes, counts)
    if last:
        grad = _swap_taps_and_channels(grad, slices, inner, out_of_last=True)
    by_mask = needs[3] and slope is not None
    grad_masked = torch.empty_like(hidden) if needs[0] or by_mask else None
    grad_mask = torch.empty_like(mask) if by_mask else None
    grad_weight = torch.empty_like(weight) if needs[1] else None
    grad_bias = torch.empty_like(bias) if needs[2] else None
    for taps, rows, span in slices:
        grad_kernel = grad[span].view(rows.stop - rows.start, -1)
        if grad_weight is not None:
            torch.mm(grad_kernel, masked[taps], out=grad_weight[rows])
        if grad_bias is not None:
            torch.mv(grad_kernel, mask[taps], out=grad_bias[rows])
        if grad_masked is not None:
            torch.mm(grad_kernel.t(), weight[rows], out=grad_masked[taps])
        if grad_mask is not None:
            torch.mv(grad_kernel.t(), bias[rows], out=grad_mask[taps])
    found = []
    if needs[0]:
        found.append(grad_masked * mask.unsqueeze(1) if slope is not None else grad_masked)
    found += [grad for grad in (grad_weight, grad_bias) if grad is not None]
    if needs[3]:
        grad_soft = torch.zeros_like(soft_sizes)
        if by_mask:
            grad_mask += (grad_masked * hidden).sum(dim=1)
            grad_soft.index_add_(0, index.flatten(), (grad_mask * mask * slope).flatten())
        found.append(grad_soft)
    return [grad.to(dtype) for grad in found]
