"""`assemble_kernels` in batched PyTorch: a product a layer."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
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


@lru_cache(maxsize=64)
def _lengths(shapes: tuple[int, ...], counts: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Return taps and values of each layer."""
    taps = taps_of(shapes)
    return taps, [tap * count for tap, count in zip(taps, counts, strict=True)]


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
    precision: str,
) -> Tensor:
    """Compute all masked kernels in one buffer; the mask is folded into the hidden states.

    Because it is folded in before the product, unmasked kernels are never stored.
    """
    hidden, weight, bias = widened(hidden, weight, bias)
    if soft_sizes is not None:
        (soft_sizes,) = widened(soft_sizes)
    masked, mask, _, _ = _masked(hidden, soft_sizes, shapes, rules, centre)
    taps, values = _lengths(tuple(shapes), tuple(counts))
    buffer = hidden.new_empty(sum(values))
    parts = (
        *(buffer.split(values), weight.split(counts), bias.split(counts)),
        *(masked.t().split(taps, 1), mask.split(taps)),
    )
    for out, rows, biases, states, factors in zip(*parts, strict=True):
        out = out.view(len(rows), len(factors))
        torch.outer(biases, factors, out=out)
        out.addmm_(rows, states)
    if last:
        buffer = _swap_taps_and_channels(buffer, taps, values, inner, out_of_last=False)
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
    buffer: Tensor,
    taps: list[int],
    values: list[int],
    inner: Sequence[int],
    *,
    out_of_last: bool,
) -> Tensor:
    """Transpose each layer's `(c_out, c_in, taps)` to `(c_out, taps, c_in)`, or back."""
    swapped = torch.empty_like(buffer)
    parts = buffer.split(values), swapped.split(values), taps, inner
    for part, out, count, c_in in zip(*parts, strict=True):
        layer = part.view(-1, *((count, c_in) if out_of_last else (c_in, count))).transpose(1, 2)
        out.view(layer.shape).copy_(layer)
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
    precision: str,
) -> list[Tensor]:
    """Return those gradients of `hidden`, `weight`, `bias` and `soft_sizes` that are needed."""
    dtype = hidden.dtype
    hidden, weight, bias = widened(hidden, weight, bias)
    if soft_sizes is not None:
        (soft_sizes,) = widened(soft_sizes)
    grad = grad.to(hidden.dtype)
    masked, mask, slope, index = _masked(hidden, soft_sizes, shapes, rules, centre)
    taps, values = _lengths(tuple(shapes), tuple(counts))
    if last:
        grad = _swap_taps_and_channels(grad, taps, values, inner, out_of_last=True)
    by_mask = needs[3] and slope is not None
    kernels = [
        part.view(count, tap)
        for part, count, tap in zip(grad.split(values), counts, taps, strict=True)
    ]
    found = []
    if needs[0] or by_mask:
        grad_masked = torch.empty_like(hidden)
        parts = kernels, weight.split(counts), grad_masked.split(taps)
        for kernel, rows, out in zip(*parts, strict=True):
            torch.mm(kernel.t(), rows, out=out)
    if needs[0]:
        found.append(grad_masked if slope is None else grad_masked * mask.unsqueeze(1))
    if needs[1]:
        found.append(torch.empty_like(weight))
        parts = kernels, masked.split(taps), found[-1].split(counts)
        for kernel, states, out in zip(*parts, strict=True):
            torch.mm(kernel, states, out=out)
    if needs[2]:
        found.append(torch.empty_like(bias))
        parts = kernels, mask.split(taps), found[-1].split(counts)
        for kernel, factors, out in zip(*parts, strict=True):
            torch.mv(kernel, factors, out=out)
    if needs[3]:
        found.append(torch.zeros_like(soft_sizes))
    if by_mask:
        grad_mask = torch.empty_like(mask)
        parts = kernels, bias.split(counts), grad_mask.split(taps)
        for kernel, values, out in zip(*parts, strict=True):
            torch.mv(kernel.t(), values, out=out)
        grad_mask += (grad_masked * hidden).sum(dim=1)
        found[-1].index_add_(0, index.flatten(), (grad_mask * mask * slope).flatten())
    return [grad.to(dtype) for grad in found]
