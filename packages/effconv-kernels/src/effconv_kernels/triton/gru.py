"""`gru_unroll` in Triton: one program a layer, all timesteps in one launch."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from effconv_kernels.on_device import Table, on_device, ready

ON_CHIP = 128
"""The largest hidden size whose recurrent weights a program keeps in registers; above, it reads
them anew for every timestep."""
ON_CHIP_BACKWARD = 64
"""The same for the backward pass, which has more to keep."""


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    # exp of a number that is never positive cannot overflow.
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def _constants(gates, bias, unit, real, H: tl.constexpr):
    """Give what no timestep changes: r and z before the state's part, and the two halves of n."""
    constant_r = tl.load(gates + unit, mask=real, other=0.0).to(tl.float32)
    constant_r += tl.load(bias + unit, mask=real, other=0.0).to(tl.float32)
    constant_z = tl.load(gates + H + unit, mask=real, other=0.0).to(tl.float32)
    constant_z += tl.load(bias + H + unit, mask=real, other=0.0).to(tl.float32)
    in_n = tl.load(gates + 2 * H + unit, mask=real, other=0.0).to(tl.float32)
    bias_n = tl.load(bias + 2 * H + unit, mask=real, other=0.0).to(tl.float32)
    return constant_r, constant_z, in_n, bias_n


@triton.jit
def _weights(weight, unit, column, H: tl.constexpr):
    """Load the same tile of each gate's recurrent weights."""
    tile = weight + unit[:, None] * H + column[None, :]
    inside = (unit < H)[:, None] & (column < H)[None, :]
    weight_r = tl.load(tile, mask=inside, other=0.0).to(tl.float32)
    weight_z = tl.load(tile + H * H, mask=inside, other=0.0).to(tl.float32)
    weight_n = tl.load(tile + 2 * H * H, mask=inside, other=0.0).to(tl.float32)
    return weight_r, weight_z, weight_n


@triton.jit
def _products(weight, before, t, unit, H: tl.constexpr, BK: tl.constexpr):
    """Multiply some rows of each gate's weights by the state before timestep t."""
    sum_r = tl.zeros(unit.shape, tl.float32)
    sum_z = tl.zeros(unit.shape, tl.float32)
    sum_n = tl.zeros(unit.shape, tl.float32)
    for start in range(0, H, BK):
        column = start + tl.arange(0, BK)
        state = tl.load(before + column, mask=(column < H) & (t > 0), other=0.0)
        wide = state.to(tl.float32)[None, :]
        weight_r, weight_z, weight_n = _weights(weight, unit, column, H)
        sum_r += tl.sum(weight_r * wide, axis=1)
        sum_z += tl.sum(weight_z * wide, axis=1)
        sum_n += tl.sum(weight_n * wide, axis=1)
    return sum_r, sum_z, sum_n


@triton.jit
def _slopes(total, previous, reset, update, candidate, recurrent_n):
    """Give the loss's derivatives by r, z, both halves of n, before their nonlinearities."""
    slope_n = total * (1.0 - update) * (1.0 - candidate * candidate)
    slope_z = total * (previous - candidate) * update * (1.0 - update)
    slope_r = slope_n * recurrent_n * reset * (1.0 - reset)
    return slope_r, slope_z, slope_n * reset, slope_n


@triton.jit
def _store_slopes(out, unit, real, slope_r, slope_z, slope_h, slope_n, H: tl.constexpr):
    tl.store(out + unit, slope_r, mask=real)
    tl.store(out + H + unit, slope_z, mask=real)
    tl.store(out + 2 * H + unit, slope_h, mask=real)
    tl.store(out + 3 * H + unit, slope_n, mask=real)


@triton.jit
def _forward_on_chip(gates, weight, bias, starts, states, H: tl.constexpr, B: tl.constexpr):
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    T = tl.load(starts + layer + 1) - first
    unit = tl.arange(0, B)
    real = unit < H
    weight_r, weight_z, weight_n = _weights(weight + layer * 3 * H * H, unit, unit, H)
    constant_r, constant_z, in_n, bias_n = _constants(
        gates + layer * 3 * H, bias + layer * 3 * H, unit, real, H
    )
    state = tl.zeros((B,), tl.float32)
    for t in range(T):
        wide = state[None, :]
        reset = _sigmoid(tl.sum(weight_r * wide, axis=1) + constant_r)
        update = _sigmoid(tl.sum(weight_z * wide, axis=1) + constant_z)
        candidate = _tanh(in_n + reset * (tl.sum(weight_n * wide, axis=1) + bias_n))
        state = candidate + update * (state - candidate)
        tl.store(states + (first + t) * H + unit, state, mask=real)


@triton.jit
def _backward_on_chip(
    grad, states, gates, weight, bias, starts, slopes, H: tl.constexpr, B: tl.constexpr
):
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    T = tl.load(starts + layer + 1) - first
    unit = tl.arange(0, B)
    real = unit < H
    weight_r, weight_z, weight_n = _weights(weight + layer * 3 * H * H, unit, unit, H)
    constant_r, constant_z, in_n, bias_n = _constants(
        gates + layer * 3 * H, bias + layer * 3 * H, unit, real, H
    )
    carry = tl.zeros((B,), tl.float32)
    for back in range(T):
        t = T - 1 - back
        row = first + t
        previous = tl.load(states + (row - 1) * H + unit, mask=real & (t > 0), other=0.0)
        previous = previous.to(tl.float32)
        wide = previous[None, :]
        reset = _sigmoid(tl.sum(weight_r * wide, axis=1) + constant_r)
        update = _sigmoid(tl.sum(weight_z * wide, axis=1) + constant_z)
        recurrent_n = tl.sum(weight_n * wide, axis=1) + bias_n
        candidate = _tanh(in_n + reset * recurrent_n)
        total = carry + tl.load(grad + row * H + unit, mask=real, other=0.0).to(tl.float32)
        slope_r, slope_z, slope_h, slope_n = _slopes(
            total, previous, reset, update, candidate, recurrent_n
        )
        _store_slopes(slopes + row * 4 * H, unit, real, slope_r, slope_z, slope_h, slope_n, H)
        parts = weight_r * slope_r[:, None] + weight_z * slope_z[:, None]
        carry = total * update + tl.sum(parts + weight_n * slope_h[:, None], axis=0)


@triton.jit
def _forward_streamed(
    gates, weight, bias, starts, states, H: tl.constexpr, BO: tl.constexpr, BK: tl.constexpr
):
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    T = tl.load(starts + layer + 1) - first
    for t in range(T):
        before = states + (first + t - 1) * H
        for start in range(0, H, BO):
            unit = start + tl.arange(0, BO)
            real = unit < H
            sum_r, sum_z, sum_n = _products(weight + layer * 3 * H * H, before, t, unit, H, BK)
            constant_r, constant_z, in_n, bias_n = _constants(
                gates + layer * 3 * H, bias + layer * 3 * H, unit, real, H
            )
            update = _sigmoid(sum_z + constant_z)
            candidate = _tanh(in_n + _sigmoid(sum_r + constant_r) * (sum_n + bias_n))
            state = tl.load(before + unit, mask=real & (t > 0), other=0.0)
            state = candidate + update * (state - candidate)
            tl.store(states + (first + t) * H + unit, state, mask=real)
        tl.debug_barrier()  # the next timestep reads what other threads have written


@triton.jit
def _backward_streamed(
    grad,
    states,
    gates,
    weight,
    bias,
    starts,
    slopes,
    carry,
    H: tl.constexpr,
    BO: tl.constexpr,
    BK: tl.constexpr,
):
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    T = tl.load(starts + layer + 1) - first
    weight += layer * 3 * H * H
    carry += layer * H
    for back in range(T):
        t = T - 1 - back
        row = first + t
        before = states + (row - 1) * H
        out = slopes + row * 4 * H
        for start in range(0, H, BO):
            unit = start + tl.arange(0, BO)
            real = unit < H
            sum_r, sum_z, sum_n = _products(weight, before, t, unit, H, BK)
            constant_r, constant_z, in_n, bias_n = _constants(
                gates + layer * 3 * H, bias + layer * 3 * H, unit, real, H
            )
            previous = tl.load(before + unit, mask=real & (t > 0), other=0.0).to(tl.float32)
            reset = _sigmoid(sum_r + constant_r)
            update = _sigmoid(sum_z + constant_z)
            candidate = _tanh(in_n + reset * (sum_n + bias_n))
            total = tl.load(grad + row * H + unit, mask=real, other=0.0).to(tl.float32)
            total += tl.load(carry + unit, mask=real & (back > 0), other=0.0)
            slope_r, slope_z, slope_h, slope_n = _slopes(
                total, previous, reset, update, candidate, sum_n + bias_n
            )
            _store_slopes(out, unit, real, slope_r, slope_z, slope_h, slope_n, H)
            tl.store(carry + unit, total * update, mask=real)
        tl.debug_barrier()  # what follows reads the slopes and the carry of all threads
        for start in range(0, H, BK):
            column = start + tl.arange(0, BK)
            total = tl.load(carry + column, mask=column < H, other=0.0)
            for other in range(0, H, BO):
                unit = other + tl.arange(0, BO)
                real = unit < H
                weight_r, weight_z, weight_n = _weights(weight, unit, column, H)
                slope_r = tl.load(out + unit, mask=real, other=0.0)
                slope_z = tl.load(out + H + unit, mask=real, other=0.0)
                slope_h = tl.load(out + 2 * H + unit, mask=real, other=0.0)
                parts = weight_r * slope_r[:, None] + weight_z * slope_z[:, None]
                total += tl.sum(parts + weight_n * slope_h[:, None], axis=0)
            tl.store(carry + column, total, mask=column < H)
        tl.debug_barrier()  # the next timestep reads the carry


@triton.jit
def _grad_parameters(
    slopes,
    states,
    starts,
    grad_gates,
    grad_weight,
    grad_bias,
    H: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BT: tl.constexpr,
):
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    T = tl.load(starts + layer + 1) - first
    gate = tl.program_id(1) * BM + tl.arange(0, BM)
    unit = tl.program_id(2) * BN + tl.arange(0, BN)
    total = tl.zeros((BM, BN), tl.float32)
    sums = tl.zeros((BM,), tl.float32)
    for start in range(0, T, BT):
        t = start + tl.arange(0, BT)
        slope = tl.load(
            slopes + (first + t)[None, :] * 4 * H + gate[:, None],
            mask=(t < T)[None, :] & (gate < 4 * H)[:, None],
            other=0.0,
        )
        previous = tl.load(
            states + (first + t - 1)[:, None] * H + unit[None, :],
            mask=((t > 0) & (t < T))[:, None] & (unit < H)[None, :],
            other=0.0,
        ).to(tl.float32)
        total = tl.dot(slope, previous, total, input_precision="ieee")
        sums += tl.sum(slope, axis=1)
    tl.store(
        grad_weight + layer * 3 * H * H + gate[:, None] * H + unit[None, :],
        total,
        mask=(gate < 3 * H)[:, None] & (unit < H)[None, :],
    )
    if tl.program_id(2) == 0:
        # r and z have one sum for input and recurrent half; n has the recurrent one third and the
        # input one fourth.
        tl.store(grad_bias + layer * 3 * H + gate, sums, mask=gate < 3 * H)
        tl.store(grad_gates + layer * 3 * H + gate, sums, mask=gate < 2 * H)
        tl.store(grad_gates + layer * 3 * H + gate - H, sums, mask=(gate >= 3 * H) & (gate < 4 * H))


@lru_cache(maxsize=64)
def _starts(steps: tuple[int, ...], device: torch.device) -> Table:
    """First row of each layer, and the end; kept, so that a repeated call copies nothing."""
    return on_device([0, *accumulate(steps)], device)


def _block(H: int) -> tuple[int, int]:
    """Padded hidden size and warps of an on-chip program, so that its weights fit the registers."""
    padded = max(triton.next_power_of_2(H), 16)
    return padded, {16: 4, 32: 4, 64: 8, 128: 32}[padded]


def gru_unroll(
    input_gates: Tensor, weight_hh: Tensor, bias_hh: Tensor, steps: Sequence[int]
) -> Tensor:
    """Run all layers in one launch."""
    layers, _, H = weight_hh.shape
    starts = ready(_starts(tuple(steps), weight_hh.device))
    arguments = input_gates.contiguous(), weight_hh.contiguous(), bias_hh.contiguous(), starts
    if H <= ON_CHIP:
        states = weight_hh.new_empty(sum(steps), H)
        B, warps = _block(H)
        _forward_on_chip[(layers,)](*arguments, states, H=H, B=B, num_warps=warps)
        return states
    # A timestep reads the one before it from here, so it must not be rounded.
    states = weight_hh.new_empty(sum(steps), H, dtype=torch.float32)
    _forward_streamed[(layers,)](*arguments, states, H=H, BO=64, BK=64, num_warps=8)
    return states.to(weight_hh.dtype)


def gru_unroll_backward(
    grad: Tensor,
    hidden: Tensor,
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the gradients of `input_gates`, `weight_hh` and `bias_hh` in two launches.

    Gates are recomputed from the saved states.
    """
    layers, _, H = weight_hh.shape
    starts = ready(_starts(tuple(steps), weight_hh.device))
    input_gates, weight_hh, bias_hh = (
        tensor.contiguous() for tensor in (input_gates, weight_hh, bias_hh)
    )
    slopes = weight_hh.new_empty(sum(steps), 4 * H, dtype=torch.float32)
    arguments = grad.contiguous(), hidden, input_gates, weight_hh, bias_hh, starts, slopes
    if H <= ON_CHIP_BACKWARD:
        B, warps = _block(H)
        _backward_on_chip[(layers,)](*arguments, H=H, B=B, num_warps=warps)
    else:
        carry = slopes.new_empty(layers, H)
        _backward_streamed[(layers,)](*arguments, carry, H=H, BO=64, BK=64, num_warps=8)
    grads = tuple(torch.empty_like(tensor) for tensor in (input_gates, weight_hh, bias_hh))
    BM = BN = 32
    grid = layers, triton.cdiv(4 * H, BM), triton.cdiv(H, BN)
    _grad_parameters[grid](slopes, hidden, starts, *grads, H=H, BM=BM, BN=BN, BT=16, num_warps=4)
    return grads
