"""`gru_unroll` in Triton: one program per layer, all timesteps in one launch."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from effconv_kernels.device_tables import Table, on_device, ready

ON_CHIP = 128
"""The largest hidden size whose recurrent weights a program keeps in registers; above it, they
are read again at each timestep."""


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    # exp of a non-positive number cannot overflow.
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def _constants(gates, bias, unit, real, H: tl.constexpr):
    """Return the terms constant over timesteps: those of r and z, and both halves of n."""
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
def _products(weight, before, known, unit, H: tl.constexpr, BK: tl.constexpr):
    """Multiply given rows of each gate's weights by the first `known` units of the last state."""
    sum_r = tl.zeros(unit.shape, tl.float32)
    sum_z = tl.zeros(unit.shape, tl.float32)
    sum_n = tl.zeros(unit.shape, tl.float32)
    for start in range(0, H, BK):
        column = start + tl.arange(0, BK)
        state = tl.load(before + column, mask=column < known, other=0.0)
        wide = state.to(tl.float32)[None, :]
        weight_r, weight_z, weight_n = _weights(weight, unit, column, H)
        sum_r += tl.sum(weight_r * wide, axis=1)
        sum_z += tl.sum(weight_z * wide, axis=1)
        sum_n += tl.sum(weight_n * wide, axis=1)
    return sum_r, sum_z, sum_n


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
def _forward_streamed(
    gates, weight, bias, starts, states, H: tl.constexpr, BO: tl.constexpr, BK: tl.constexpr
):
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    T = tl.load(starts + layer + 1) - first
    for t in range(T):
        before = states + (first + t - 1) * H
        known = tl.minimum(t, 1) * H  # the state before the first one is zero
        for start in range(0, H, BO):
            unit = start + tl.arange(0, BO)
            real = unit < H
            sum_r, sum_z, sum_n = _products(weight + layer * 3 * H * H, before, known, unit, H, BK)
            constant_r, constant_z, in_n, bias_n = _constants(
                gates + layer * 3 * H, bias + layer * 3 * H, unit, real, H
            )
            update = _sigmoid(sum_z + constant_z)
            candidate = _tanh(in_n + _sigmoid(sum_r + constant_r) * (sum_n + bias_n))
            state = tl.load(before + unit, mask=unit < known, other=0.0)
            state = candidate + update * (state - candidate)
            tl.store(states + (first + t) * H + unit, state, mask=real)
        tl.debug_barrier()  # the next timestep reads what other threads have written


@triton.jit
def _slopes(
    states,
    gates,
    weight,
    bias,
    starts,
    slopes,
    H: tl.constexpr,
    BT: tl.constexpr,
    BO: tl.constexpr,
    BK: tl.constexpr,
):
    """Compute the derivatives of each timestep's state by its gates, from the states only.

    Five numbers per unit: the derivatives of h_t by r, z and the two halves of n, before their
    nonlinearities, and z, the derivative by h_{t-1} that does not pass through the gates.
    """
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    T = tl.load(starts + layer + 1) - first
    t = tl.program_id(1) * BT + tl.arange(0, BT)
    unit = tl.program_id(2) * BO + tl.arange(0, BO)
    known = ((t > 0) & (t < T))[:, None]
    before = states + (first + t - 1)[:, None] * H
    sum_r = tl.zeros((BT, BO), tl.float32)
    sum_z = tl.zeros((BT, BO), tl.float32)
    sum_n = tl.zeros((BT, BO), tl.float32)
    for start in range(0, H, BK):
        column = start + tl.arange(0, BK)
        state = tl.load(before + column[None, :], mask=known & (column < H)[None, :], other=0.0)
        state = state.to(tl.float32)
        weight_r, weight_z, weight_n = _weights(weight + layer * 3 * H * H, unit, column, H)
        sum_r = tl.dot(state, tl.trans(weight_r), sum_r, input_precision="ieee")
        sum_z = tl.dot(state, tl.trans(weight_z), sum_z, input_precision="ieee")
        sum_n = tl.dot(state, tl.trans(weight_n), sum_n, input_precision="ieee")
    constant_r, constant_z, in_n, bias_n = _constants(
        gates + layer * 3 * H, bias + layer * 3 * H, unit, unit < H, H
    )
    reset = _sigmoid(sum_r + constant_r[None, :])
    update = _sigmoid(sum_z + constant_z[None, :])
    recurrent_n = sum_n + bias_n[None, :]
    candidate = _tanh(in_n[None, :] + reset * recurrent_n)
    real = (unit < H)[None, :]
    previous = tl.load(before + unit[None, :], mask=known & real, other=0.0).to(tl.float32)
    slope_n = (1.0 - update) * (1.0 - candidate * candidate)
    out = slopes + (first + t)[:, None] * (5 * H) + unit[None, :]
    inside = (t < T)[:, None] & real
    tl.store(out, slope_n * recurrent_n * reset * (1.0 - reset), mask=inside)
    tl.store(out + H, (previous - candidate) * update * (1.0 - update), mask=inside)
    tl.store(out + 2 * H, slope_n * reset, mask=inside)
    tl.store(out + 3 * H, slope_n, mask=inside)
    tl.store(out + 4 * H, update, mask=inside)


@triton.jit
def _backward_on_chip(grad, slopes, weight, starts, totals, H: tl.constexpr, B: tl.constexpr):
    """Compute dL/dh_t, which the timestep's output and all later timesteps contribute to."""
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    last = tl.load(starts + layer + 1) - 1
    unit = tl.arange(0, B)
    real = unit < H
    weight_r, weight_z, weight_n = _weights(weight + layer * 3 * H * H, unit, unit, H)
    total = tl.load(grad + last * H + unit, mask=real, other=0.0).to(tl.float32)
    tl.store(totals + last * H + unit, total, mask=real)
    for back in range(last - first):
        row = last - back
        slope = slopes + row * (5 * H) + unit
        update = tl.load(slope + 4 * H, mask=real, other=0.0)
        slope_r = tl.load(slope[:, None], mask=real[:, None], other=0.0)
        slope_z = tl.load(slope[:, None] + H, mask=real[:, None], other=0.0)
        slope_h = tl.load(slope[:, None] + 2 * H, mask=real[:, None], other=0.0)
        parts = weight_r * slope_r + weight_z * slope_z + weight_n * slope_h
        carry = total * update + tl.sum(parts * total[:, None], axis=0)
        total = carry + tl.load(grad + (row - 1) * H + unit, mask=real, other=0.0).to(tl.float32)
        tl.store(totals + (row - 1) * H + unit, total, mask=real)


@triton.jit
def _backward_streamed(
    grad, slopes, weight, starts, totals, H: tl.constexpr, BO: tl.constexpr, BK: tl.constexpr
):
    """Compute the same as `_backward_on_chip`; a timestep reads the total of the later one."""
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    last = tl.load(starts + layer + 1) - 1
    weight += layer * 3 * H * H
    for start in range(0, H, BK):
        column = start + tl.arange(0, BK)
        total = tl.load(grad + last * H + column, mask=column < H, other=0.0).to(tl.float32)
        tl.store(totals + last * H + column, total, mask=column < H)
    for back in range(last - first):
        tl.debug_barrier()  # what follows reads what other threads have written
        row = last - back
        later, slope = totals + row * H, slopes + row * (5 * H)
        for start in range(0, H, BK):
            column = start + tl.arange(0, BK)
            real = column < H
            total = tl.load(grad + (row - 1) * H + column, mask=real, other=0.0).to(tl.float32)
            update = tl.load(slope + 4 * H + column, mask=real, other=0.0)
            total += update * tl.load(later + column, mask=real, other=0.0)
            for other in range(0, H, BO):
                unit = other + tl.arange(0, BO)
                weight_r, weight_z, weight_n = _weights(weight, unit, column, H)
                whole = tl.load(later + unit, mask=unit < H, other=0.0)
                slope_r = whole * tl.load(slope + unit, mask=unit < H, other=0.0)
                slope_z = whole * tl.load(slope + H + unit, mask=unit < H, other=0.0)
                slope_h = whole * tl.load(slope + 2 * H + unit, mask=unit < H, other=0.0)
                parts = weight_r * slope_r[:, None] + weight_z * slope_z[:, None]
                total += tl.sum(parts + weight_n * slope_h[:, None], axis=0)
            tl.store(totals + (row - 1) * H + column, total, mask=real)


@triton.jit
def _grad_parameters(
    slopes,
    totals,
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
        inside = (t < T)[None, :] & (gate < 4 * H)[:, None]
        row = (first + t)[None, :]
        slope = tl.load(slopes + row * (5 * H) + gate[:, None], mask=inside, other=0.0)
        slope *= tl.load(totals + row * H + (gate % H)[:, None], mask=inside, other=0.0)
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
        # r and z have one sum for input and recurrent half; n has its recurrent half third and its
        # input half fourth.
        tl.store(grad_bias + layer * 3 * H + gate, sums, mask=gate < 3 * H)
        tl.store(grad_gates + layer * 3 * H + gate, sums, mask=gate < 2 * H)
        tl.store(grad_gates + layer * 3 * H + gate - H, sums, mask=(gate >= 3 * H) & (gate < 4 * H))


@lru_cache(maxsize=64)
def _starts(steps: tuple[int, ...], device: torch.device) -> Table:
    """Return the first row of each layer, and the end; cached, so repeated calls copy nothing."""
    return on_device([0, *accumulate(steps)], device)


def _block(H: int) -> tuple[int, int]:
    """Return padded hidden size and warps of an on-chip program whose weights fit in registers."""
    padded = max(triton.next_power_of_2(H), 16)
    return padded, {16: 4, 32: 4, 64: 8, 128: 32}[padded]


def try_out(device: torch.device) -> None:
    """Compile and launch the programs once, to find out whether they run at all."""
    if torch.cuda.is_current_stream_capturing():
        return
    gates, weight = torch.zeros(1, 48, device=device), torch.zeros(1, 48, 16, device=device)
    states = gru_unroll(gates, weight, gates, [1], None, False)
    gru_unroll_backward(states, states, gates, weight, gates, [1], None, False, [True] * 3)
    torch.cuda.synchronize(device)


def gru_unroll(
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor,
    steps: Sequence[int],
    initial_state: None,
    reverse: bool,
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
    initial_state: None,
    reverse: bool,
    needs: Sequence[bool],
) -> list[Tensor]:
    """Return those gradients of gates, weights and biases that are needed, in three launches.

    Gates are recomputed from the saved states, for all timesteps at once; one program per layer
    then goes back in time, and the sums over timesteps are products.
    """
    layers, _, H = weight_hh.shape
    starts = ready(_starts(tuple(steps), weight_hh.device))
    grad, hidden, input_gates, weight_hh, bias_hh = (
        tensor.contiguous() for tensor in (grad, hidden, input_gates, weight_hh, bias_hh)
    )
    slopes = weight_hh.new_empty(sum(steps), 5 * H, dtype=torch.float32)
    grid = layers, triton.cdiv(max(steps), 16), triton.cdiv(H, 32)
    arguments = hidden, input_gates, weight_hh, bias_hh, starts, slopes
    _slopes[grid](*arguments, H=H, BT=16, BO=32, BK=32, num_warps=4)
    totals = weight_hh.new_empty(sum(steps), H, dtype=torch.float32)
    arguments = grad, slopes, weight_hh, starts, totals
    if H <= ON_CHIP:
        B, warps = _block(H)
        _backward_on_chip[(layers,)](*arguments, H=H, B=B, num_warps=warps)
    else:
        _backward_streamed[(layers,)](*arguments, H=H, BO=64, BK=64, num_warps=8)
    grads = tuple(torch.empty_like(tensor) for tensor in (input_gates, weight_hh, bias_hh))
    grid = layers, triton.cdiv(4 * H, 32), triton.cdiv(H, 32)
    arguments = slopes, totals, hidden, starts, *grads
    _grad_parameters[grid](*arguments, H=H, BM=32, BN=32, BT=16, num_warps=4)
    return [grad for grad, needed in zip(grads, needs, strict=False) if needed]
