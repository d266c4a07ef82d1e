"""Batched PyTorch forms of the operators, without autograd; they run on any device."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from effconv_kernels.device_tables import Table, on_device, ready
from effconv_kernels.mask import gaussian, middle_of


def _long(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return contiguous tensors in float32 or wider, as used for sums."""
    return tuple(
        tensor.to(torch.promote_types(tensor.dtype, torch.float32)).contiguous()
        for tensor in tensors
    )


class _Ragged(NamedTuple):
    """Indices of layers and timesteps in padded tables, whose layers are sorted by length."""

    order: Table
    """`(L,)`: the layers from the longest to the shortest."""
    rank: Table
    """`(L,)`: the rank of each layer in that order."""
    by_step: Table
    """`(sum T,)`: the index of each state in a `(T, L)` table."""
    by_layer: Table
    """`(sum T,)`: the index of each state in an `(L, T)` table."""
    active: list[int]
    """`T` numbers: layers that still run at each timestep."""
    is_sorted: bool

    def sort(self, rows: Tensor) -> Tensor:
        """Sort layers; sorted weights are not copied."""
        return rows if self.is_sorted else rows[ready(self.order)]

    def unsort(self, rows: Tensor) -> Tensor:
        """Restore the original order of sorted layers."""
        return rows if self.is_sorted else rows[ready(self.rank)]


@lru_cache(maxsize=64)
def _ragged(steps: tuple[int, ...], device: torch.device) -> _Ragged:
    layers, longest = len(steps), max(steps)
    order = sorted(range(layers), key=lambda layer: -steps[layer])
    rank = sorted(range(layers), key=order.__getitem__)
    places = [(rank[layer], t) for layer, count in enumerate(steps) for t in range(count)]
    tables = (
        on_device(rows, device)
        for rows in (
            order,
            rank,
            [t * layers + place for place, t in places],
            [place * longest + t for place, t in places],
        )
    )
    active = [sum(count > t for count in steps) for t in range(longest)]
    return _Ragged(*tables, active, order == list(range(layers)))


def gru_unroll(
    input_gates: Tensor, weight_hh: Tensor, bias_hh: Tensor, steps: Sequence[int]
) -> Tensor:
    """Run all GRUs in one loop over timesteps; finished layers drop out of the batch."""
    layers, _, H = weight_hh.shape
    dtype = weight_hh.dtype
    ragged = _ragged(tuple(steps), weight_hh.device)
    gates_in, weight, bias = map(ragged.sort, _long(input_gates, weight_hh, bias_hh))
    # The reset gate multiplies the recurrent half of the candidate, so only r and z can be folded.
    constant = torch.cat([(gates_in + bias)[:, : 2 * H], bias[:, 2 * H :]], 1)
    # States as rows: on a CPU the batched product with columns takes longer. One GRU
    # alone is a matrix and a vector, whose product has a call of its own.
    constant_rows, transposed = constant.unsqueeze(1), weight.transpose(1, 2)
    candidate_in = gates_in[:, 2 * H :]
    states = weight.new_empty(max(steps), layers, H)
    hidden = weight.new_zeros(layers, H)
    for t, n in enumerate(ragged.active):
        hidden = hidden[:n]
        if layers == 1:
            gates = torch.addmv(constant[0], weight[0], hidden[0]).unsqueeze(0)
        else:
            product = torch.baddbmm(constant_rows[:n], hidden.unsqueeze(1), transposed[:n])
            gates = product.squeeze(1)
        reset, update = gates[:, : 2 * H].sigmoid_().chunk(2, dim=1)
        candidate = torch.addcmul(candidate_in[:n], reset, gates[:, 2 * H :]).tanh_()
        hidden = torch.lerp(candidate, hidden, update, out=states[t, :n])
    return states.view(-1, H)[ready(ragged.by_step)].to(dtype)


def gru_unroll_backward(
    grad: Tensor,
    hidden: Tensor,
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `input_gates`, `weight_hh` and `bias_hh`.

    The gates of all timesteps are recomputed from the saved states in one product, and the
    weight gradient is one product at the end; the loop only carries dL/dh from step to step.
    """
    layers, _, H = weight_hh.shape
    T, dtype = max(steps), weight_hh.dtype
    ragged = _ragged(tuple(steps), weight_hh.device)
    active, index = ragged.active, ready(ragged.by_layer)
    grad, hidden = _long(grad, hidden)
    constant_in, weight, bias = map(ragged.sort, _long(input_gates, weight_hh, bias_hh))

    def pad(rows: Tensor) -> Tensor:
        return rows.new_zeros(layers * T, H).index_copy_(0, index, rows).view(layers, T, H)

    constant_in = constant_in.unsqueeze(1)
    states, grad_states = pad(hidden), pad(grad)
    previous = torch.cat([states.new_zeros(layers, 1, H), states[:, :-1]], dim=1)
    recurrent = torch.baddbmm(bias.unsqueeze(1), previous, weight.transpose(1, 2))
    reset, update = torch.sigmoid((constant_in + recurrent)[..., : 2 * H]).chunk(2, dim=-1)
    h_n = recurrent[..., 2 * H :]
    candidate = torch.tanh(constant_in[..., 2 * H :] + reset * h_n)

    # Derivatives of the pre-activations by h_t: dL/d(gate) = slope * dL/dh_t.
    slope_n = (1 - update) * (1 - candidate * candidate)
    slope_z = (previous - candidate) * update * (1 - update)
    slope_r = slope_n * h_n * reset * (1 - reset)
    slopes = torch.stack([slope_r, slope_z, slope_n * reset], dim=2)

    grad_hidden = torch.zeros_like(states)
    carry = states.new_zeros(0, H)
    for t in range(T - 1, -1, -1):
        n = active[t]
        total = grad_states[:n, t].clone()
        total[: carry.shape[0]] += carry
        grad_hidden[:n, t] = total
        if t:
            grad_recurrent = (slopes[:n, t] * total.unsqueeze(1)).view(n, 1, 3 * H)
            carry = torch.baddbmm(
                (update[:n, t] * total).unsqueeze(1), grad_recurrent, weight[:n]
            ).squeeze(1)

    grad_recurrent = (slopes * grad_hidden.unsqueeze(2)).view(layers, T, 3 * H)
    grad_weight = torch.bmm(grad_recurrent.transpose(1, 2), previous)
    grad_bias = grad_recurrent.sum(dim=1)
    grad_gates = torch.cat([grad_bias[:, : 2 * H], (slope_n * grad_hidden).sum(dim=1)], dim=1)

    return tuple(ragged.unsort(rows).to(dtype) for rows in (grad_gates, grad_weight, grad_bias))


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
    hidden, weight, bias, soft_sizes = _long(hidden, weight, bias, soft_sizes)
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
    hidden, weight, bias, soft_sizes = _long(hidden, weight, bias, soft_sizes)
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
