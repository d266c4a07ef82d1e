"""Where the programs of `assemble_kernels` find a layer, and its mask at each tap."""

import math

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton has no wheel for this platform")

import triton.language as tl  # noqa: E402
from effconv_kernels.triton import places, tables  # noqa: E402

layer_of, map_of, mask_of, places_of = (
    places.layer_of,
    places.map_of,
    places.mask_of,
    places.places_of,
)
SHAPES, COUNTS, INNER = (1, 2, 3, 2, 1, 5), (12, 6), (4, 2)
RULES = (-1, 1, 0, 0, -1, 2)
SOFT = (2.7, 1.9, 4.6)


@triton.jit
def _layers(layers, out):
    layer = tl.program_id(0)
    taps, states, rows, start = layer_of(layers, layer)
    count, c_in = map_of(layers, layer)
    tl.store(out + 6 * layer, taps)
    tl.store(out + 6 * layer + 1, states)
    tl.store(out + 6 * layer + 2, rows)
    tl.store(out + 6 * layer + 3, start)
    tl.store(out + 6 * layer + 4, count)
    tl.store(out + 6 * layer + 5, c_in)


@triton.jit
def _places(out, taps, c_in, LAST: tl.constexpr, ROWS: tl.constexpr, TAPS: tl.constexpr):
    row, tap = tl.arange(0, ROWS), tl.arange(0, TAPS)
    found = places_of(row[:, None], tap[None, :], taps, c_in, LAST)
    tl.store(out + row[:, None] * TAPS + tap[None, :], found)


@triton.jit
def _masks(soft, layers, layer, out, MASKED: tl.constexpr, ALIGNED: tl.constexpr, N: tl.constexpr):
    tap = tl.arange(0, N)
    mask, slope_0, slope_1, slope_2 = mask_of(soft, layers, layer, tap, MASKED, ALIGNED)
    tl.store(out + tap, mask)
    tl.store(out + N + tap, slope_0)
    tl.store(out + 2 * N + tap, slope_1)
    tl.store(out + 3 * N + tap, slope_2)


def table(device):
    return tables.look_up(SHAPES, COUNTS, INNER, RULES, torch.device(device)).layers


def test_a_layer_is_read_from_its_row(triton_device):
    out = torch.zeros(2, 6, dtype=torch.int64, device=triton_device)
    _layers[(2,)](table(triton_device), out)
    assert out.tolist() == [[6, 0, 0, 0, 12, 4], [10, 6, 12, 72, 6, 2]]


@pytest.mark.parametrize("last", [False, True])
def test_places_are_those_of_the_memory_format(last, triton_device):
    c_out, c_in, taps = 2, 4, 4
    out = torch.zeros(8, 4, dtype=torch.int64, device=triton_device)
    _places[(1,)](out, taps, c_in, last, 8, 4)
    for row in range(8):
        for tap in range(4):
            outer, inner = divmod(row, c_in)
            expected = (outer * taps + tap) * c_in + inner if last else row * taps + tap
            assert out[row, tap] == expected
    assert sorted(out.flatten().tolist()) == list(range(c_out * c_in * taps))


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_mask_and_its_slopes_are_those_of_equation_6(layer, aligned, triton_device):
    shape, rules = SHAPES[3 * layer :][:3], RULES[3 * layer :][:3]
    soft = torch.tensor(SOFT, device=triton_device)
    out = torch.empty(4, 16, device=triton_device)
    _masks[(1,)](soft, table(triton_device), layer, out, True, aligned, 16)
    taps = torch.cartesian_prod(*[torch.arange(1, n + 1) for n in shape]).tolist()
    for tap, place in enumerate(taps):
        v = [SOFT[rule] if rule >= 0 else None for rule in rules]

        def value(v, place=place):
            exponent = 0.0
            for i, size, soft_size in zip(place, shape, v):
                if soft_size is not None:
                    middle = (size + 1) / 2 if aligned else soft_size / 2
                    exponent += ((i - middle) / soft_size) ** 2
            return math.exp(-exponent)

        assert out[0, tap].item() == pytest.approx(value(v), rel=1e-5)
        for axis in range(3):
            slope = 0.0
            if v[axis] is not None:
                up, down = ([*v], [*v])
                up[axis], down[axis] = v[axis] + 1e-5, v[axis] - 1e-5
                slope = (value(up) - value(down)) / 2e-5
            assert out[1 + axis, tap].item() == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_without_a_mask_every_tap_is_one(triton_device):
    out = torch.empty(4, 8, device=triton_device)
    soft = torch.tensor(SOFT, device=triton_device)
    _masks[(1,)](soft, table(triton_device), 0, out, False, False, 8)
    assert (out[0] == 1).all()
