"""`assemble_kernels` in Triton: map, mask and layout of all layers in one launch."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from effconv_kernels.triton.tables import ROWS, look_up

COLUMNS = tl.constexpr(8)  # columns of the table of layers


@triton.jit
def _layer(layers, layer):
    """Return size, first row of the states, first row of the map and offset in the buffer."""
    entry = layers + layer * COLUMNS
    size = tl.load(entry).to(tl.int32)
    return size, tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3)


@triton.jit
def _map(layers, layer):
    """Return the number of rows of a layer's map, and its c_in."""
    entry = layers + layer * COLUMNS
    return tl.load(entry + 4).to(tl.int32), tl.load(entry + 6).to(tl.int32)


@triton.jit
def _places(row, tap, taps, c_in, LAST: tl.constexpr):
    """Return the offsets in a layer's part of the buffer of given map rows at given taps.

    Indices within a layer have 32 bits, which keeps the divisions cheap; offsets have 64.
    """
    if LAST:
        outer = row // c_in
        places = outer.to(tl.int64) * taps * c_in + (row - outer * c_in) + tap * c_in
    else:
        places = row.to(tl.int64) * taps + tap
    return places


@triton.jit
def _mask(soft_sizes, layer, tap, size, ALIGNED: tl.constexpr):
    """Return the mask of EffConv Eq. 6 and its derivative by v at given taps of a layer."""
    v = tl.load(soft_sizes + layer).to(tl.float32)
    i = (tap // size + 1).to(tl.float32)
    j = (tap % size + 1).to(tl.float32)
    if ALIGNED:
        middle = (size + 1).to(tl.float32) / 2
    else:
        middle = v / 2
    distance = (i - middle) * (i - middle) + (j - middle) * (j - middle)
    mask = tl.exp(-distance / (v * v))
    slope = 2 * distance / (v * v * v)
    if not ALIGNED:
        slope += (i - middle + j - middle) / (v * v)
    return mask, mask * slope


@triton.jit
def _forward(
    hidden,
    weight,
    bias,
    soft_sizes,
    layers,
    blocks,
    kernels,
    H: tl.constexpr,
    BM: tl.constexpr,
    BT: tl.constexpr,
    BH: tl.constexpr,
    ALIGNED: tl.constexpr,
    LAST: tl.constexpr,
):
    layer = tl.load(blocks + tl.program_id(0) * 2)
    row = tl.load(blocks + tl.program_id(0) * 2 + 1).to(tl.int32) + tl.arange(0, BM)
    size, first_state, first_row, start = _layer(layers, layer)
    count, c_in = _map(layers, layer)
    taps = size * size
    values = tl.load(bias + first_row + row, mask=row < count, other=0.0).to(tl.float32)
    for first_tap in range(0, taps, BT):
        tap = first_tap + tl.arange(0, BT)
        kernel = tl.zeros((BM, BT), tl.float32)
        for first_unit in range(0, H, BH):
            unit = first_unit + tl.arange(0, BH)
            part = tl.load(
                weight + (first_row + row)[:, None] * H + unit[None, :],
                mask=(row < count)[:, None] & (unit < H)[None, :],
                other=0.0,
            ).to(tl.float32)
            states = tl.load(
                hidden + (first_state + tap)[None, :] * H + unit[:, None],
                mask=(tap < taps)[None, :] & (unit < H)[:, None],
                other=0.0,
            ).to(tl.float32)
            kernel = tl.dot(part, states, kernel, input_precision="ieee")
        mask, _ = _mask(soft_sizes, layer, tap, size, ALIGNED)
        tl.store(
            kernels + start + _places(row[:, None], tap[None, :], taps, c_in, LAST),
            (kernel + values[:, None]) * mask[None, :],
            mask=(row < count)[:, None] & (tap < taps)[None, :],
        )


@triton.jit
def _grad_map(
    grad,
    hidden,
    soft_sizes,
    layers,
    blocks,
    grad_weight,
    grad_bias,
    H: tl.constexpr,
    BM: tl.constexpr,
    BT: tl.constexpr,
    BH: tl.constexpr,
    ALIGNED: tl.constexpr,
    LAST: tl.constexpr,
):
    layer = tl.load(blocks + tl.program_id(0) * 2)
    row = tl.load(blocks + tl.program_id(0) * 2 + 1).to(tl.int32) + tl.arange(0, BM)
    unit = tl.program_id(1) * BH + tl.arange(0, BH)
    size, first_state, first_row, start = _layer(layers, layer)
    count, c_in = _map(layers, layer)
    taps = size * size
    total = tl.zeros((BM, BH), tl.float32)
    sums = tl.zeros((BM,), tl.float32)
    for first_tap in range(0, taps, BT):
        tap = first_tap + tl.arange(0, BT)
        mask, _ = _mask(soft_sizes, layer, tap, size, ALIGNED)
        masked = mask[None, :] * tl.load(
            grad + start + _places(row[:, None], tap[None, :], taps, c_in, LAST),
            mask=(row < count)[:, None] & (tap < taps)[None, :],
            other=0.0,
        ).to(tl.float32)
        states = tl.load(
            hidden + (first_state + tap)[:, None] * H + unit[None, :],
            mask=(tap < taps)[:, None] & (unit < H)[None, :],
            other=0.0,
        ).to(tl.float32)
        total = tl.dot(masked, states, total, input_precision="ieee")
        sums += tl.sum(masked, axis=1)
    tl.store(
        grad_weight + (first_row + row)[:, None] * H + unit[None, :],
        total,
        mask=(row < count)[:, None] & (unit < H)[None, :],
    )
    if tl.program_id(1) == 0:
        tl.store(grad_bias + first_row + row, sums, mask=row < count)


@triton.jit
def _sum_chunk(
    grad,
    weight,
    bias,
    layers,
    chunks,
    sums,
    H: tl.constexpr,
    BM: tl.constexpr,
    BT: tl.constexpr,
    BH: tl.constexpr,
    LAST: tl.constexpr,
):
    """Sum grad times weight, and in column H grad times bias, over one chunk of rows."""
    entry = chunks + tl.program_id(0) * 3
    layer, first, out = tl.load(entry), tl.load(entry + 1).to(tl.int32), tl.load(entry + 2)
    unit = tl.program_id(1) * BH + tl.arange(0, BH)
    size, _, first_row, start = _layer(layers, layer)
    count, c_in = _map(layers, layer)
    length = tl.load(layers + layer * COLUMNS + 7).to(tl.int32)
    taps = size * size
    for first_tap in range(0, taps, BT):
        tap = first_tap + tl.arange(0, BT)
        total = tl.zeros((BT, BH), tl.float32)
        biased = tl.zeros((BT,), tl.float32)
        for block in range(0, length, BM):
            row = first + block + tl.arange(0, BM)
            part = tl.load(
                grad + start + _places(row[None, :], tap[:, None], taps, c_in, LAST),
                mask=(row < count)[None, :] & (tap < taps)[:, None],
                other=0.0,
            ).to(tl.float32)
            rows = tl.load(
                weight + (first_row + row)[:, None] * H + unit[None, :],
                mask=(row < count)[:, None] & (unit < H)[None, :],
                other=0.0,
            ).to(tl.float32)
            total = tl.dot(part, rows, total, input_precision="ieee")
            values = tl.load(bias + first_row + row, mask=row < count, other=0.0).to(tl.float32)
            biased += tl.sum(part * values[None, :], axis=1)
        tl.store(
            sums + (out + tap)[:, None] * (H + 1) + unit[None, :],
            total,
            mask=(tap < taps)[:, None] & (unit < H)[None, :],
        )
        if tl.program_id(1) == 0:
            tl.store(sums + (out + tap) * (H + 1) + H, biased, mask=tap < taps)


@triton.jit
def _grad_states(
    sums,
    hidden,
    soft_sizes,
    layers,
    grad_hidden,
    parts,
    H: tl.constexpr,
    BT: tl.constexpr,
    BH: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    layer = tl.program_id(0)
    tap = tl.program_id(1) * BT + tl.arange(0, BT)
    size, first_state, _, _ = _layer(layers, layer)
    count = tl.load(layers + layer * COLUMNS + 4).to(tl.int32)
    first_sum = tl.load(layers + layer * COLUMNS + 5)
    length = tl.load(layers + layer * COLUMNS + 7).to(tl.int32)
    taps = size * size
    real = tap < taps
    chunks = tl.cdiv(count, length)
    grad_mask = tl.zeros((BT,), tl.float32)
    for chunk in range(chunks):
        at = sums + (first_sum + chunk * taps + tap) * (H + 1)
        grad_mask += tl.load(at + H, mask=real, other=0.0)
    mask, slope = _mask(soft_sizes, layer, tap, size, ALIGNED)
    for first_unit in range(0, H, BH):
        unit = first_unit + tl.arange(0, BH)
        inside = real[:, None] & (unit < H)[None, :]
        total = tl.zeros((BT, BH), tl.float32)
        for chunk in range(chunks):
            at = sums + (first_sum + chunk * taps + tap)[:, None] * (H + 1) + unit[None, :]
            total += tl.load(at, mask=inside, other=0.0)
        at = (first_state + tap)[:, None] * H + unit[None, :]
        states = tl.load(hidden + at, mask=inside, other=0.0).to(tl.float32)
        grad_mask += tl.sum(total * states, axis=1)
        tl.store(grad_hidden + at, total * mask[:, None], mask=inside)
    part = tl.sum(tl.where(real, grad_mask * slope, 0.0), axis=0)
    tl.store(parts + layer * tl.num_programs(1) + tl.program_id(1), part)


def _units(H: int) -> int:
    """Return the hidden units per program iteration; 64 would not fit in registers."""
    return 16 if H <= 16 else 32


def try_out(device: torch.device) -> None:
    """Compile and launch the programs once, to find out whether they run at all."""
    if torch.cuda.is_current_stream_capturing():
        return
    tensors = [torch.ones(shape, device=device) for shape in ((1, 16), (1, 16), (1,), (1,))]
    which = [1], [1], [1], "paper", False
    kernels = assemble_kernels(*tensors, *which, torch.float32)
    assemble_kernels_backward(kernels, *tensors, *which)
    torch.cuda.synchronize(device)


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
    """Compute all masked kernels in one buffer and one launch; unmasked ones are never stored."""
    H = hidden.shape[1]
    layers, _, row_blocks, _ = look_up(sizes, counts, inner, hidden.device)
    total = sum(count * size * size for count, size in zip(counts, sizes, strict=True))
    kernels = hidden.new_empty(total, dtype=dtype)
    _forward[(len(row_blocks),)](
        hidden.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        soft_sizes.contiguous(),
        layers,
        row_blocks,
        kernels,
        H=H,
        BM=ROWS,
        BT=16,
        BH=_units(H),
        ALIGNED=centre == "aligned",
        LAST=last,
        num_warps=4,
    )
    return kernels


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
    """Return the gradients of `hidden`, `weight`, `bias` and `soft_sizes` in four launches.

    Sums over the rows of a map have a fixed order, so that a repeated call is bit-identical.
    """
    H = hidden.shape[1]
    grad, hidden, weight, bias, soft_sizes = (
        tensor.contiguous() for tensor in (grad, hidden, weight, bias, soft_sizes)
    )
    layers, chunks, row_blocks, rows = look_up(sizes, counts, inner, hidden.device)
    grad_hidden, grad_weight, grad_bias = map(torch.empty_like, (hidden, weight, bias))
    BH, aligned = _units(H), centre == "aligned"
    _grad_map[(len(row_blocks), triton.cdiv(H, BH))](
        grad,
        hidden,
        soft_sizes,
        layers,
        row_blocks,
        grad_weight,
        grad_bias,
        H=H,
        BM=ROWS,
        BT=16,
        BH=BH,
        ALIGNED=aligned,
        LAST=last,
        num_warps=4,
    )
    sums = hidden.new_empty(rows, H + 1, dtype=torch.float32)
    _sum_chunk[(len(chunks), triton.cdiv(H, BH))](
        grad,
        weight,
        bias,
        layers,
        chunks,
        sums,
        H=H,
        BM=ROWS,
        BT=16,
        BH=BH,
        LAST=last,
        num_warps=4,
    )
    tap_blocks = triton.cdiv(max(sizes) ** 2, 16)
    parts = hidden.new_empty(len(sizes), tap_blocks, dtype=torch.float32)
    _grad_states[(len(sizes), tap_blocks)](
        sums,
        hidden,
        soft_sizes,
        layers,
        grad_hidden,
        parts,
        H=H,
        BT=16,
        BH=BH,
        ALIGNED=aligned,
        num_warps=4,
    )
    return grad_hidden, grad_weight, grad_bias, parts.sum(dim=1).to(soft_sizes.dtype)
