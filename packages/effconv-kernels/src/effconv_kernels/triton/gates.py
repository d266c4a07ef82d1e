"""What the programs of `gru_unroll` share: nonlinearities, and tiles of weights."""

import triton
import triton.language as tl


@triton.jit
def sigmoid(x):
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """Return tanh with a small relative error, near 0 too."""
    # exp of a non-positive number cannot overflow. Near 0 the difference would lose digits, so that
    # there the first terms of the series stand, whose rest is below 1e-7 of them.
    square = x * x
    series = -0.05396825396825397 + square * 0.021869488536155203
    series = x + x * square * (
        -0.3333333333333333 + square * (0.13333333333333333 + square * series)
    )
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(square < 0.09, series, tl.where(x < 0, -size, size))


@triton.jit
def constants(gates, bias, unit, real, H: tl.constexpr):
    """Return the terms constant over timesteps: those of r and z, and both halves of n."""
    constant_r = tl.load(gates + unit, mask=real, other=0.0).to(tl.float32)
    constant_r += tl.load(bias + unit, mask=real, other=0.0).to(tl.float32)
    constant_z = tl.load(gates + H + unit, mask=real, other=0.0).to(tl.float32)
    constant_z += tl.load(bias + H + unit, mask=real, other=0.0).to(tl.float32)
    in_n = tl.load(gates + 2 * H + unit, mask=real, other=0.0).to(tl.float32)
    bias_n = tl.load(bias + 2 * H + unit, mask=real, other=0.0).to(tl.float32)
    return constant_r, constant_z, in_n, bias_n


@triton.jit
def weights(weight, unit, column, H: tl.constexpr):
    """Load the same tile of each gate's recurrent weights."""
    tile = weight + unit[:, None] * H + column[None, :]
    inside = (unit < H)[:, None] & (column < H)[None, :]
    weight_r = tl.load(tile, mask=inside, other=0.0).to(tl.float32)
    weight_z = tl.load(tile + H * H, mask=inside, other=0.0).to(tl.float32)
    weight_n = tl.load(tile + 2 * H * H, mask=inside, other=0.0).to(tl.float32)
    return weight_r, weight_z, weight_n


@triton.jit
def products(weight, before, known, unit, H: tl.constexpr, BK: tl.constexpr):
    """Multiply given rows of each gate's weights by the first `known` units of the last state."""
    sum_r = tl.zeros(unit.shape, tl.float32)
    sum_z = tl.zeros(unit.shape, tl.float32)
    sum_n = tl.zeros(unit.shape, tl.float32)
    for start in range(0, H, BK):
        column = start + tl.arange(0, BK)
        state = tl.load(before + column, mask=column < known, other=0.0)
        wide = state.to(tl.float32)[None, :]
        weight_r, weight_z, weight_n = weights(weight, unit, column, H)
        sum_r += tl.sum(weight_r * wide, axis=1)
        sum_z += tl.sum(weight_z * wide, axis=1)
        sum_n += tl.sum(weight_n * wide, axis=1)
    return sum_r, sum_z, sum_n
