"""What the backward program of `assemble_kernels` does with one chunk of a map's rows."""

import triton
import triton.language as tl

from effconv_kernels.triton.places import COLUMNS, layer_of, map_of, mask_of, places_of


@triton.jit
def _rows_of(layers, layer, first):
    """Return the number of rows of the chunk that begins at a given row."""
    count, _ = map_of(layers, layer)
    return tl.minimum(tl.load(layers + layer * COLUMNS + 7).to(tl.int32), count - first)


@triton.jit
def _load_grad(grad, layers, layer, row, tap, LAST: tl.constexpr):
    """Load the kernels' gradient at some rows and taps."""
    taps, _, _, start = layer_of(layers, layer)
    count, c_in = map_of(layers, layer)
    return tl.load(
        grad + start + places_of(row[:, None], tap[None, :], taps, c_in, LAST),
        mask=(row < count)[:, None] & (tap < taps)[None, :],
        other=0.0,
    ).to(tl.float32)


@triton.jit
def _load_states(hidden, layers, layer, tap, unit, H: tl.constexpr):
    """Load the hidden states of some taps."""
    taps, first_state, _, _ = layer_of(layers, layer)
    return tl.load(
        hidden + (first_state + tap)[:, None] * H + unit[None, :],
        mask=(tap < taps)[:, None] & (unit < H)[None, :],
        other=0.0,
    ).to(tl.float32)


@triton.jit
def _store_map(
    grad_weight, grad_bias, layers, layer, row, unit, by_weight, by_bias, H: tl.constexpr
):
    """Write the gradients of some rows of the map and of its bias."""
    _, _, first_row, _ = layer_of(layers, layer)
    count, _ = map_of(layers, layer)
    at = grad_weight + (first_row + row)[:, None] * H + unit[None, :]
    tl.store(at, by_weight, mask=(row < count)[:, None] & (unit < H)[None, :])
    # Of several programs with the same rows, the one with the first units writes this.
    tl.store(grad_bias + first_row + row, by_bias, mask=(row < count) & (tl.min(unit) == 0))


@triton.jit
def grads_of_taps(
    grad,
    hidden,
    weight,
    bias,
    soft_sizes,
    layers,
    sums,
    grad_weight,
    grad_bias,
    layer,
    first,
    first_sum,
    first_tap,
    unit,
    H: tl.constexpr,
    BM: tl.constexpr,
    BT: tl.constexpr,
    MAP: tl.constexpr,
    STATES: tl.constexpr,
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    LAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Read a chunk's rows once for BT taps: MAP gives the map's gradient, if these are all taps.

    STATES gives at each of these taps the sum over the rows of the gradient times the map, and in
    column H times the bias.
    """
    taps, _, first_row, _ = layer_of(layers, layer)
    count, _ = map_of(layers, layer)
    tap = first_tap + tl.arange(0, BT)
    mask, _, _, _ = mask_of(soft_sizes, layers, layer, tap, MASKED, ALIGNED)
    BH: tl.constexpr = unit.shape[0]
    total = tl.zeros((BT, BH), tl.float32)
    biased = tl.zeros((BM, BT), tl.float32)
    for past in range(0, _rows_of(layers, layer, first), BM):
        row = first + past + tl.arange(0, BM)
        part = _load_grad(grad, layers, layer, row, tap, LAST)
        if MAP:
            states = _load_states(hidden, layers, layer, tap, unit, H)
            masked = part * mask[None, :]
            by_weight = tl.dot(masked, states, input_precision=PRECISION)
            by_bias = tl.sum(masked, axis=1)
            _store_map(grad_weight, grad_bias, layers, layer, row, unit, by_weight, by_bias, H)
        if STATES:
            rows = tl.load(
                weight + (first_row + row)[:, None] * H + unit[None, :],
                mask=(row < count)[:, None] & (unit < H)[None, :],
                other=0.0,
            ).to(tl.float32)
            values = tl.load(bias + first_row + row, mask=row < count, other=0.0).to(tl.float32)
            total = tl.dot(tl.trans(part), rows, total, input_precision=PRECISION)
            biased += part * values[:, None]
    if STATES:
        at = sums + (first_sum + tap) * (H + 1)
        inside = (tap < taps)[:, None] & (unit < H)[None, :]
        tl.store(at[:, None] + unit[None, :], total, mask=inside)
        tl.store(at + H, tl.sum(biased, axis=0), mask=(tap < taps) & (tl.min(unit) == 0))


@triton.jit
def grad_map(
    grad,
    hidden,
    soft_sizes,
    layers,
    grad_weight,
    grad_bias,
    layer,
    first,
    unit,
    H: tl.constexpr,
    BM: tl.constexpr,
    BT: tl.constexpr,
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    LAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gradient of a chunk of the map, BT taps at a time."""
    taps = tl.load(layers + layer * COLUMNS).to(tl.int32)
    BH: tl.constexpr = unit.shape[0]
    for past in range(0, _rows_of(layers, layer, first), BM):
        row = first + past + tl.arange(0, BM)
        by_weight = tl.zeros((BM, BH), tl.float32)
        by_bias = tl.zeros((BM,), tl.float32)
        for first_tap in range(0, taps, BT):
            tap = first_tap + tl.arange(0, BT)
            mask, _, _, _ = mask_of(soft_sizes, layers, layer, tap, MASKED, ALIGNED)
            masked = mask[None, :] * _load_grad(grad, layers, layer, row, tap, LAST)
            states = _load_states(hidden, layers, layer, tap, unit, H)
            by_weight = tl.dot(masked, states, by_weight, input_precision=PRECISION)
            by_bias += tl.sum(masked, axis=1)
        _store_map(grad_weight, grad_bias, layers, layer, row, unit, by_weight, by_bias, H)
