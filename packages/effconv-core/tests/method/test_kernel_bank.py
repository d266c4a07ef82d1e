"""The bank of kernels: where its taps lie, how they start, and its rings."""

import pytest
import torch
from effconv_core.config import SearchConfig
from effconv_core.method.kernel_bank import KernelBank
from effconv_core.method.mask import modulation_mask
from effconv_core.space.search_space import Layer, SizeSpace

CHANNELS = [(4, 3), (2, 6), (5, 2)]


def square(channels):
    return SizeSpace([Layer(str(place), pair) for place, pair in enumerate(channels)])


def make(kind, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    return kind(square(CHANNELS), SearchConfig(**changes), generator).double()


def soft(sizes):
    return (torch.tensor(sizes, dtype=torch.float64) + 0.2).requires_grad_()


@pytest.mark.parametrize("size", range(1, 8))
def test_a_banks_tap_keeps_its_place_over_the_image_at_every_size(size):
    bank = make(KernelBank)
    with torch.no_grad():
        for kernel in bank.kernels:
            # Each tap holds its offset from the output pixel.
            kernel.copy_(torch.arange(-3.0, 4).view(7, 1) * 10 + torch.arange(-3.0, 4))
    soft_sizes = soft([size] * 3)
    before = (size - 1) // 2
    offsets = torch.arange(size, dtype=torch.float64) - before
    expected = (offsets.view(-1, 1) * 10 + offsets) * modulation_mask(
        [soft_sizes[0]] * 2, [size] * 2
    )
    for kernel, (c_out, c_in) in zip(bank(soft_sizes, [size] * 3), CHANNELS):
        torch.testing.assert_close(kernel, expected.expand(c_out, c_in, size, size))


def test_a_banks_taps_outside_of_the_window_have_no_gradient():
    bank = make(KernelBank)
    sum(kernel.sum() for kernel in bank(soft([3, 3, 3]), [3, 3, 3])).backward()
    for kernel in bank.kernels:
        inside = torch.zeros(7, 7, dtype=torch.bool)
        inside[2:5, 2:5] = True
        assert (kernel.grad[:, :, inside] > 0).all()
        assert (kernel.grad[:, :, ~inside] == 0).all()


def test_a_bank_starts_with_he_fan_out_deviation_at_size_three():
    generator = torch.Generator().manual_seed(0)
    bank = KernelBank(square([(32, 64)]), SearchConfig(), generator)
    assert bank.kernels[0].std().item() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.02)


def test_a_ring_an_axis_is_on_or_off_by_itself():
    layers = [
        Layer("line", (4, 3), range(1, 8), (0,)),
        Layer("depthwise", (6, 1), range(1, 8), (0, 0), groups=6),
        Layer("cube", (2, 2), range(1, 6), (0, 0, 0)),
        Layer("row", (3, 2), range(1, 8), (None, 0)),
        Layer("apart", (2, 2), range(1, 8), (0, 1)),
    ]
    sizes = [5, 2, 3, 4, 2, 5]
    config = SearchConfig(kernel_form="bank", mask="ring")
    bank = KernelBank(SizeSpace(layers), config, torch.Generator()).double().train()
    with torch.no_grad():
        for kernel in bank.kernels:
            kernel.fill_(1)
    lower = torch.tensor([size - 0.5 for size in sizes], dtype=torch.float64)
    drawn = [0.9] * 4 + [0.1, 0.9]  # on along the first axis of `apart` alone
    bank.draws.forward = lambda count: torch.tensor(drawn)
    counts = [k[0, 0].sum().item() for k in bank(lower, sizes)]
    assert counts == [4, 1, 2**3, 3, 2 * 4]


def test_layers_that_share_a_size_share_a_draw():
    layers = [Layer(str(i), (1, 1), range(1, 8), (0,)) for i in range(3)]
    bank = KernelBank(
        SizeSpace(layers, [[0, 2]]),
        SearchConfig(kernel_form="bank", mask="ring"),
        torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        for kernel in bank.kernels:
            kernel.fill_(1)
    seen = {
        tuple(k.sum().item() for k in bank(torch.full((3,), 3.5), [4, 4, 4])) for _ in range(60)
    }
    assert seen == {(a, b, a) for a in (3.0, 4.0) for b in (3.0, 4.0)}
