"""`gru_unroll` in Triton: one program per layer, all timesteps in one launch."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from effconv_kernels.device_tables import Table, on_device, ready
from effconv_kernels.triton.cards import ALL, OLD, card_of, is_tight
from effconv_kernels.triton.gates import constants, products, sigmoid, tanh, weights

ON_CHIP = 128
"""The largest hidden size whose recurrent weights a program keeps in registers; above it, they
are read again at each timestep."""


@triton.jit
def _forward_on_chip(
    gates, weight, bias, starts, states, H: tl.constexpr, B: tl.constexpr, TURNED: tl.constexpr
):
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    T = (tl.load(starts + layer + 1) - first).to(tl.int32)
    unit = tl.arange(0, B)
    real = unit < H
    # The sums run along the first dimension, and in this order, so that the compiler gives them to
    # few threads: it lays out a tile by what is contiguous in memory, along which all threads of a
    # warp would have to exchange their sums and each repeat every nonlinearity. A tile in which
    # nothing is contiguous goes by its last dimension, before Triton 3.7 by its first.
    column = (unit % 4) * (B // 4) + unit // 4
    if TURNED:
        weight_r, weight_z, weight_n = weights(weight + layer * 3 * H * H, unit, column, H)
        weight_r, weight_z, weight_n = tl.trans(weight_r), tl.trans(weight_z), tl.trans(weight_n)
    else:
        tile = weight + layer * 3 * H * H + column[:, None] + unit[None, :] * H
        inside = (column < H)[:, None] & real[None, :]
        weight_r = tl.load(tile, mask=inside, other=0.0).to(tl.float32)
        weight_z = tl.load(tile + H * H, mask=inside, other=0.0).to(tl.float32)
        weight_n = tl.load(tile + 2 * H * H, mask=inside, other=0.0).to(tl.float32)
    constant_r, constant_z, in_n, bias_n = constants(
        gates + layer * 3 * H, bias + layer * 3 * H, unit, real, H
    )
    state = tl.zeros((B,), tl.float32)
    out = states + first * H + unit
    for _ in range(T):
        wide = tl.reshape(tl.trans(tl.reshape(state, (4, B // 4))), (B,))[:, None]
        reset = sigmoid(tl.sum(weight_r * wide, axis=0) + constant_r)
        update = sigmoid(tl.sum(weight_z * wide, axis=0) + constant_z)
        candidate = tanh(in_n + reset * (tl.sum(weight_n * wide, axis=0) + bias_n))
        state = candidate + update * (state - candidate)
        tl.store(out, state, mask=real)
        out += H


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
            sum_r, sum_z, sum_n = products(weight + layer * 3 * H * H, before, known, unit, H, BK)
            constant_r, constant_z, in_n, bias_n = constants(
                gates + layer * 3 * H, bias + layer * 3 * H, unit, real, H
            )
            update = sigmoid(sum_z + constant_z)
            candidate = tanh(in_n + sigmoid(sum_r + constant_r) * (sum_n + bias_n))
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
        weight_r, weight_z, weight_n = weights(weight + layer * 3 * H * H, unit, column, H)
        sum_r = tl.dot(state, tl.trans(weight_r), sum_r, input_precision="ieee")
        sum_z = tl.dot(state, tl.trans(weight_z), sum_z, input_precision="ieee")
        sum_n = tl.dot(state, tl.trans(weight_n), sum_n, input_precision="ieee")
    constant_r, constant_z, in_n, bias_n = constants(
        gates + layer * 3 * H, bias + layer * 3 * H, unit, unit < H, H
    )
    reset = sigmoid(sum_r + constant_r[None, :])
    update = sigmoid(sum_z + constant_z[None, :])
    recurrent_n = sum_n + bias_n[None, :]
    candidate = tanh(in_n[None, :] + reset * recurrent_n)
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
def _slopes_of(slope, before, real, H: tl.constexpr):
    """Load a timestep's slopes by r, z, n and the state, and the timestep before's own gradient."""
    slope_r = tl.load(slope, mask=real, other=0.0)
    slope_z = tl.load(slope + H, mask=real, other=0.0)
    slope_h = tl.load(slope + 2 * H, mask=real, other=0.0)
    update = tl.load(slope + 4 * H, mask=real, other=0.0)
    return slope_r, slope_z, slope_h, update, tl.load(before, mask=real, other=0.0).to(tl.float32)


@triton.jit
def _backward_on_chip(
    grad,
    slopes,
    weight,
    starts,
    totals,
    H: tl.constexpr,
    B: tl.constexpr,
    ONE_SUM: tl.constexpr,
):
    """Compute dL/dh_t, which the timestep's output and all later timesteps contribute to."""
    # What a timestep needs is loaded during the product of the one that follows it, but where the
    # weights leave no registers for it.
    AHEAD: tl.constexpr = B < 128
    layer = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + layer)
    last = tl.load(starts + layer + 1) - 1
    steps = (last - first).to(tl.int32)
    unit = tl.arange(0, B)
    real = unit < H
    weight_r, weight_z, weight_n = weights(weight + layer * 3 * H * H, unit, unit, H)
    slope, before, out = slopes + last * (5 * H), grad + last * H, totals + last * H
    total = tl.load(before + unit, mask=real, other=0.0).to(tl.float32)
    tl.store(out + unit, total, mask=real)
    before -= H
    if AHEAD:
        by_r, by_z, by_h, update, own = _slopes_of(
            slope + unit, before + unit, real & (steps > 0), H
        )
    for back in range(steps):
        if not AHEAD:
            by_r, by_z, by_h, update, own = _slopes_of(slope + unit, before + unit, real, H)
        carry = total * update + own
        now_r, now_z, now_h = by_r * total, by_z * total, by_h * total
        slope -= 5 * H
        before -= H
        out -= H
        if AHEAD:
            ahead = real & (back + 1 < steps)
            by_r, by_z, by_h, update, own = _slopes_of(slope + unit, before + unit, ahead, H)
        if ONE_SUM:
            parts = weight_r * now_r[:, None] + weight_z * now_z[:, None]
            total = carry + tl.sum(parts + weight_n * now_h[:, None], axis=0)
        else:
            total = carry + tl.sum(weight_r * now_r[:, None], axis=0)
            total += tl.sum(weight_z * now_z[:, None], axis=0)
            total += tl.sum(weight_n * now_h[:, None], axis=0)
        tl.store(out + unit, total, mask=real)


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
                weight_r, weight_z, weight_n = weights(weight, unit, column, H)
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
    """Return padded hidden size and warps of an on-chip program.

    As many warps as needed so that the weights fit in registers, and no more, since they wait for
    one another in each timestep; the backward program is fastest with as many as the forward one.
    """
    padded = max(triton.next_power_of_2(H), 16)
    return padded, {16: 1, 32: 1, 64: 4, 128: 8}[padded]


def _streamed(tight: bool) -> dict[str, int | None]:
    """Return sides of a tile, warps and most registers of a streamed program."""
    return {"BO": 64, "BK": 64, "num_warps": 8, "maxnreg": ALL if tight else None}


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
        how = {"TURNED": OLD, "num_warps": warps}
        _forward_on_chip[(layers,)](*arguments, states, H=H, B=B, **how)
        return states
    # A timestep reads the one before it from here, so it must not be rounded.
    states = weight_hh.new_empty(sum(steps), H, dtype=torch.float32)
    how = _streamed(is_tight(card_of(states.device)))
    _forward_streamed[(layers,)](*arguments, states, H=H, **how)
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
    tight = is_tight(card_of(weight_hh.device))
    if H <= ON_CHIP:
        B, warps = _block(H)
        # Three sums take fewer registers, which rows that are not aligned, or short, need.
        one_sum = B < 128 or (H % 4 == 0 and weight_hh.dtype == torch.float32 and not tight)
        # Short rows are read eight numbers at a time, which takes a few more.
        weight = weight_hh.float() if B == 128 and tight else weight_hh
        arguments = grad, slopes, weight, starts, totals
        _backward_on_chip[(layers,)](*arguments, H=H, B=B, ONE_SUM=one_sum, num_warps=warps)
    else:
        arguments = grad, slopes, weight_hh, starts, totals
        _backward_streamed[(layers,)](*arguments, H=H, **_streamed(tight))
    grads = tuple(torch.empty_like(tensor) for tensor in (input_gates, weight_hh, bias_hh))
    grid = layers, triton.cdiv(4 * H, 32), triton.cdiv(H, 32)
    arguments = slopes, totals, hidden, starts, *grads
    _grad_parameters[grid](*arguments, H=H, BM=32, BN=32, BT=16, num_warps=4)
    return [grad for grad, needed in zip(grads, needs, strict=False) if needed]
