"""The plain forms themselves, against torch and against numbers by hand."""

import math

import pytest
import torch
from effconv_kernels.reference import (
    assemble_kernels_reference,
    gru_unroll_reference,
    mask_reference,
    mask_value_reference,
)
from torch import nn


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_a_gru_is_that_of_torch(reverse, started):
    H, steps = 3, [4, 2]
    weight, bias = drawn(2, 3 * H, H, seed=1), drawn(2, 3 * H, seed=2)
    series, start = drawn(sum(steps), 3 * H, seed=3), drawn(2, H, seed=4) if started else None
    found = gru_unroll_reference(series, weight, bias, steps, start, reverse=reverse)
    for layer, rows in enumerate((slice(0, 4), slice(4, 6))):
        gru = nn.GRU(3 * H, H).double()
        with torch.no_grad():
            gru.weight_ih_l0.copy_(torch.eye(3 * H))
            gru.weight_hh_l0.copy_(weight[layer])
            gru.bias_ih_l0.zero_()
            gru.bias_hh_l0.copy_(bias[layer])
        own = series[rows].flip(0) if reverse else series[rows]
        states, _ = gru(own[:, None], None if start is None else start[layer].view(1, 1, H))
        states = states[:, 0].flip(0) if reverse else states[:, 0]
        torch.testing.assert_close(found[rows], states)


def test_a_constant_input_is_read_at_every_step():
    weight, bias, gates = drawn(2, 6, 2, seed=1), drawn(2, 6, seed=2), drawn(2, 6, seed=3)
    stepped = gates[[0, 0, 0, 1]]
    torch.testing.assert_close(
        gru_unroll_reference(gates, weight, bias, [3, 1]),
        gru_unroll_reference(stepped, weight, bias, [3, 1]),
    )
    zero = torch.zeros_like(bias)
    torch.testing.assert_close(
        gru_unroll_reference(gates, weight, None, [3, 1]),
        gru_unroll_reference(gates, weight, zero, [3, 1]),
    )


@pytest.mark.parametrize(
    ("centre", "expected"),
    [("paper", (2 - 1.5) ** 2 / 9 + (1 - 2) ** 2 / 16), ("aligned", 0 + (1 - 2.5) ** 2 / 16)],
)
def test_a_masks_value_by_hand(centre, expected):
    v = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = mask_value_reference((2, 1, 5), (3, 4, 7), (v[0], v[1], None), centre)
    assert found.item() == pytest.approx(math.exp(-expected))
    assert mask_value_reference((2,), (3,), (None,), centre) == 1.0


def test_a_square_mask_has_that_value_at_each_tap():
    v = torch.tensor(2.4, dtype=torch.float64)
    mask = mask_reference(v, 3, "paper")
    assert mask.shape == (3, 3)
    for i in range(3):
        for j in range(3):
            expected = mask_value_reference((i + 1, j + 1), (3, 3), (v, v), "paper")
            assert mask[i, j] == expected


def test_kernels_are_states_mapped_in_row_major_order():
    hidden, weight, bias = drawn(4 + 3, 2, seed=1), drawn(6 + 2, 2, seed=2), drawn(8, seed=3)
    square, line = assemble_kernels_reference(
        hidden, weight, bias, None, sizes=[2, (3,)], channels=[(3, 2), (1, 2)]
    )
    assert (square.shape, line.shape) == ((3, 2, 2, 2), (1, 2, 3))
    raw = hidden[:4] @ weight[:6].t() + bias[:6]
    torch.testing.assert_close(square[2, 1, 1, 0], raw[2, 5])
    torch.testing.assert_close(square[0, 1, 0, 1], raw[1, 1])
    raw = hidden[4:] @ weight[6:].t() + bias[6:]
    torch.testing.assert_close(line[0], raw.t())


def test_axes_say_which_soft_size_rules():
    arguments = drawn(3, 2, seed=1), drawn(1, 2, seed=2), drawn(1, seed=3)
    v = torch.tensor([9.0, 2.4], dtype=torch.float64)
    options = {"sizes": [(1, 3)], "channels": [(1, 1)]}
    (kernel,) = assemble_kernels_reference(*arguments, v, axes=[(None, 1)], **options)
    (plain,) = assemble_kernels_reference(*arguments, None, **options)
    mask = [math.exp(-((i - 1.2) ** 2) / 2.4**2) for i in (1, 2, 3)]
    expected = plain[0, 0, 0] * torch.tensor(mask, dtype=torch.float64)
    torch.testing.assert_close(kernel[0, 0, 0], expected)
