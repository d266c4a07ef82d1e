"""`assemble_kernels` in Triton: map, mask and layout of all layers in one launch."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from effconv_kernels.triton.cards import ALL, OLD, card_of, is_narrow
from effconv_kernels.triton.chunks import grad_map, grads_of_taps
from effconv_kernels.triton.places import COLUMNS, layer_of, map_of, mask_of, places_of
from effconv_kernels.triton.tables import ROWS, look_up, owners_of


@triton.jit
def _write(
    hidden,
    weight,
    bias,
    soft_sizes,
    layers,
    kernels,
    layer,
    row,
    H: tl.constexpr,
    BM: tl.constexpr,
    BT: tl.constexpr,
    BH: tl.constexpr,
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    LAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write what some rows of a layer's map give, BT taps at a time."""
    taps, first_state, first_row, start = layer_of(layers, layer)
    count, c_in = map_of(layers, layer)
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
            kernel = tl.dot(part, states, kernel, input_precision=PRECISION)
        mask, _, _, _ = mask_of(soft_sizes, layers, layer, tap, MASKED, ALIGNED)
        tl.store(
            kernels + start + places_of(row[:, None], tap[None, :], taps, c_in, LAST),
            (kernel + values[:, None]) * mask[None, :],
            mask=(row < count)[:, None] & (tap < taps)[None, :],
        )


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
    BH: tl.constexpr,
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    LAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    layer = tl.load(blocks + tl.program_id(0) * 2)
    row = tl.load(blocks + tl.program_id(0) * 2 + 1).to(tl.int32) + tl.arange(0, BM)
    # The map is read again for every 32 taps; more at a time would not fit in registers.
    if tl.load(layers + layer * COLUMNS) <= 16:
        _write(
            hidden, weight, bias, soft_sizes, layers, kernels, layer, row,
            H, BM, 16, BH, MASKED, ALIGNED, LAST, PRECISION,
        )  # fmt: skip
    else:
        _write(
            hidden, weight, bias, soft_sizes, layers, kernels, layer, row,
            H, BM, 32, BH, MASKED, ALIGNED, LAST, PRECISION,
        )  # fmt: skip


@triton.jit
def _backward(
    grad,
    hidden,
    weight,
    bias,
    soft_sizes,
    layers,
    chunks,
    sums,
    grad_weight,
    grad_bias,
    H: tl.constexpr,
    BH: tl.constexpr,
    MOST: tl.constexpr,
    MAP: tl.constexpr,
    STATES: tl.constexpr,
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
    LAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Read gradient and map once: the maps' gradients, and sums of each chunk for the states'."""
    blocks: tl.constexpr = (H + BH - 1) // BH
    # Programs of one chunk follow one another, so that they find the gradient in the cache.
    unit = tl.program_id(0) % blocks * BH + tl.arange(0, BH)
    entry = chunks + tl.program_id(0) // blocks * 3
    layer, first, first_sum = tl.load(entry), tl.load(entry + 1).to(tl.int32), tl.load(entry + 2)
    taps = tl.load(layers + layer * COLUMNS).to(tl.int32)
    if taps <= 16:
        grads_of_taps(
            grad, hidden, weight, bias, soft_sizes, layers, sums, grad_weight, grad_bias,
            layer, first, first_sum, 0, unit, H, 16 if MOST == 16 else 32, 16,
            MAP, STATES, MASKED, ALIGNED, LAST, PRECISION,
        )  # fmt: skip
    if MOST > 16:
        if (taps > 16) & (taps <= 32):
            grads_of_taps(
                grad, hidden, weight, bias, soft_sizes, layers, sums, grad_weight, grad_bias,
                layer, first, first_sum, 0, unit, H, 32, 32,
                MAP, STATES, MASKED, ALIGNED, LAST, PRECISION,
            )  # fmt: skip
    if MOST > 32:
        if (taps > 32) & (taps <= 64):
            grads_of_taps(
                grad, hidden, weight, bias, soft_sizes, layers, sums, grad_weight, grad_bias,
                layer, first, first_sum, 0, unit, H, 16, 64,
                MAP, STATES, MASKED, ALIGNED, LAST, PRECISION,
            )  # fmt: skip
    if MOST > 64:
        if taps > 64:  # their sums would not fit in registers
            if MAP:
                grad_map(
                    grad, hidden, soft_sizes, layers, grad_weight, grad_bias, layer, first,
                    unit, H, 32, 32, MASKED, ALIGNED, LAST, PRECISION,
                )  # fmt: skip
            if STATES:
                for first_tap in range(0, taps, 64):
                    grads_of_taps(
                        grad, hidden, weight, bias, soft_sizes, layers, sums, grad_weight,
                        grad_bias, layer, first, first_sum, first_tap, unit, H, 16, 64,
                        False, True, MASKED, ALIGNED, LAST, PRECISION,
                    )  # fmt: skip


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
    MASKED: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    layer = tl.program_id(0)
    tap = tl.program_id(1) * BT + tl.arange(0, BT)
    taps, first_state, _, _ = layer_of(layers, layer)
    count = tl.load(layers + layer * COLUMNS + 4).to(tl.int32)
    first_sum = tl.load(layers + layer * COLUMNS + 5)
    length = tl.load(layers + layer * COLUMNS + 7).to(tl.int32)
    real = tap < taps
    chunks = tl.cdiv(count, length)
    grad_mask = tl.zeros((BT,), tl.float32)
    for chunk in range(chunks):
        at = sums + (first_sum + chunk * taps + tap) * (H + 1)
        grad_mask += tl.load(at + H, mask=real, other=0.0)
    mask, slope_0, slope_1, slope_2 = mask_of(soft_sizes, layers, layer, tap, MASKED, ALIGNED)
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
    if MASKED:
        grad_mask = tl.where(real, grad_mask, 0.0)
        blocks = tl.num_programs(1)
        part = parts + layer * 3 * blocks + tl.program_id(1)
        tl.store(part, tl.sum(grad_mask * slope_0, axis=0))
        tl.store(part + blocks, tl.sum(grad_mask * slope_1, axis=0))
        tl.store(part + 2 * blocks, tl.sum(grad_mask * slope_2, axis=0))


@triton.jit
def _grad_soft(parts, owners, grad_soft, blocks, BLOCK: tl.constexpr):
    """Sum the parts of the axes that a soft size rules, in a fixed order."""
    soft_size = tl.program_id(0)
    total = tl.zeros((BLOCK,), tl.float32)
    for place in range(tl.load(owners + soft_size), tl.load(owners + soft_size + 1)):
        axis = tl.load(owners + place)
        for first in range(0, blocks, BLOCK):
            block = first + tl.arange(0, BLOCK)
            total += tl.load(parts + axis * blocks + block, mask=block < blocks, other=0.0)
    tl.store(grad_soft + soft_size, tl.sum(total, axis=0))


def _units(H: int) -> int:
    """Return the hidden units per program iteration; 64 would not fit in registers."""
    return 16 if H <= 16 else 32


def _warps(H: int) -> int:
    """Return the warps of a program; rows that are not aligned need more registers."""
    return 8 if (H % 4 or OLD) and H > 16 else 4


def _backward_shape(H: int, most: int, card: int) -> tuple[int, int]:
    """Return hidden units and warps of the backward program; with others it spills registers."""
    unaligned = H % 4 and H > 16
    warps = {16: 2, 32: 4, 64: 8 if unaligned else 4, 128: 4 if unaligned else 8}[most]
    if (most == 64 and H % 4 and 80 < card < 90) or (most == 128 and 100 <= card < 120):
        warps = 8
    if is_narrow(card) and most > 16:
        warps = 8
    units = 32 if is_narrow(card) and most > 16 else 64
    return min(max(triton.next_power_of_2(H), 16), units), warps


def try_out(device: torch.device) -> None:
    """Compile and launch the programs once, to find out whether they run at all."""
    if torch.cuda.is_current_stream_capturing():
        return
    tensors = [torch.ones(shape, device=device) for shape in ((1, 16), (1, 16), (1,), (1,))]
    which = [1, 1, 1], [1], [1], [-1, 0, 0], "paper", False
    kernels = assemble_kernels(*tensors, *which, torch.float32, "ieee")
    assemble_kernels_backward(kernels, *tensors, *which, [True] * 4, "ieee")
    torch.cuda.synchronize(device)


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
    """Compute all masked kernels in one buffer and one launch; unmasked ones are never stored."""
    H = hidden.shape[1]
    tables = look_up(shapes, counts, inner, rules, hidden.device)
    kernels = hidden.new_empty(tables.values, dtype=dtype)
    _forward[(len(tables.blocks),)](
        hidden.contiguous(),
        weight.contiguous(),
        bias.contiguous(),
        hidden if soft_sizes is None else soft_sizes.contiguous(),
        tables.layers,
        tables.blocks,
        kernels,
        H=H,
        BM=ROWS,
        BH=_units(H),
        MASKED=soft_sizes is not None,
        ALIGNED=centre == "aligned",
        LAST=last,
        PRECISION=precision,
        num_warps=_warps(H),
        maxnreg=ALL if OLD and H % 4 == 0 else None,
    )
    return kernels


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
    """Return those gradients of `hidden`, `weight`, `bias` and `soft_sizes` that are needed.

    Sums over the rows of a map have a fixed order, so that a repeated call is bit-identical.
    """
    H = hidden.shape[1]
    grad, hidden, weight, bias = (tensor.contiguous() for tensor in (grad, hidden, weight, bias))
    soft = hidden if soft_sizes is None else soft_sizes.contiguous()
    tables = look_up(shapes, counts, inner, rules, hidden.device)
    by_states, by_map = needs[0] or needs[3], needs[1] or needs[2]
    sums = hidden.new_empty(tables.sums if by_states else 0, H + 1, dtype=torch.float32)
    grads = [torch.empty_like(tensor if by_map else tensor[:0]) for tensor in (weight, bias)]
    which = {"MASKED": soft_sizes is not None, "ALIGNED": centre == "aligned"}
    card = card_of(hidden.device)
    which |= {"maxnreg": ALL if is_narrow(card) else None}
    if by_states or by_map:
        most = next((taps for taps in (16, 32, 64) if tables.most <= taps), 128)
        BH, warps = _backward_shape(H, most, card)
        grid = (len(tables.chunks) * triton.cdiv(H, BH),)
        arguments = grad, hidden, weight, bias, soft, tables.layers, tables.chunks, sums, *grads
        constants = {"H": H, "BH": BH, "MOST": most, "MAP": by_map, "STATES": by_states}
        # The parts of TF32 factors of more taps would not fit in registers.
        constants |= {"LAST": last, "PRECISION": precision if most <= 32 else "ieee"}
        _backward[grid](*arguments, **constants, **which, num_warps=warps, num_stages=2)
    found = [torch.empty_like(hidden if by_states else hidden[:0]), *grads]
    if by_states:
        layers, blocks = len(counts), triton.cdiv(tables.most, 16)
        parts = hidden.new_empty(3 * layers, blocks, dtype=torch.float32)
        arguments = sums, hidden, soft, tables.layers, found[0], parts
        constants = {"H": H, "BT": 16, "BH": _units(H)}
        _grad_states[(layers, blocks)](*arguments, **constants, **which, num_warps=4)
    if needs[3]:
        found.append(torch.empty_like(soft))
        owners = owners_of(rules, len(soft), hidden.device)
        _grad_soft[(len(soft),)](parts, owners, found[-1], blocks, BLOCK=32, num_warps=1)
    return [grad for grad, needed in zip(found, needs, strict=False) if needed]
