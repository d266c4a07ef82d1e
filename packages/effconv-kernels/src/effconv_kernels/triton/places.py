"""What the programs of `assemble_kernels` share: where a layer lies, and its mask."""

import triton
import triton.language as tl

COLUMNS = tl.constexpr(14)  # columns of the table of layers


@triton.jit
def layer_of(layers, layer):
    """Return taps, first row of the states, first row of the map and offset in the buffer."""
    entry = layers + layer * COLUMNS
    taps = tl.load(entry).to(tl.int32)
    return taps, tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3)


@triton.jit
def map_of(layers, layer):
    """Return the number of rows of a layer's map, and its c_in."""
    entry = layers + layer * COLUMNS
    return tl.load(entry + 4).to(tl.int32), tl.load(entry + 6).to(tl.int32)


@triton.jit
def places_of(row, tap, taps, c_in, LAST: tl.constexpr):
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
def _along(soft_sizes, entry, place, AXIS: tl.constexpr, ALIGNED: tl.constexpr):
    """Return an axis' part of the exponent of EffConv Eq. 6 and of its derivative by v.

    Both are 0 along an axis that no soft size rules.
    """
    which = tl.load(entry + 11 + AXIS)
    v = tl.load(soft_sizes + which, mask=which >= 0, other=1.0).to(tl.float32)
    ruled = (which >= 0).to(tl.float32)
    if ALIGNED:
        middle = (tl.load(entry + 8 + AXIS) + 1).to(tl.float32) / 2
    else:
        middle = v / 2
    offset = ruled * ((place + 1).to(tl.float32) - middle)
    distance = offset * offset
    slope = 2 * distance / (v * v * v)
    if not ALIGNED:
        slope += offset / (v * v)
    return distance / (v * v), slope


@triton.jit
def mask_of(soft_sizes, layers, layer, tap, MASKED: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the mask of EffConv Eq. 6 at given taps, and its derivatives by each axis' v."""
    if MASKED:
        entry = layers + layer * COLUMNS
        rows, columns = tl.load(entry + 9).to(tl.int32), tl.load(entry + 10).to(tl.int32)
        line = tap // columns
        part_0, slope_0 = _along(soft_sizes, entry, line // rows, 0, ALIGNED)
        part_1, slope_1 = _along(soft_sizes, entry, line % rows, 1, ALIGNED)
        part_2, slope_2 = _along(soft_sizes, entry, tap % columns, 2, ALIGNED)
        mask = tl.exp(-(part_0 + part_1 + part_2))
    else:
        mask = (tap >= 0).to(tl.float32)
        slope_0, slope_1, slope_2 = mask, mask, mask
    return mask, mask * slope_0, mask * slope_1, mask * slope_2
