"""What `precision` costs in digits, emulated: Triton's interpreter multiplies in float32 always.

TF32 has 10 bits behind the leading one. One instruction sums 8 products of such numbers exactly,
adds them to the sum so far, and cuts what does not fit a float32. `"tf32"` cuts the factors.
`"tf32x3"` rounds them, takes what that leaves over for a second, small factor, and adds up
small times large, large times small and large times large. `"ieee"` rounds after each product.
"""

import pytest
import torch


def cut(values):
    """Cut float32 values to TF32."""
    return (values.view(torch.int32) & ~0x1FFF).view(torch.float32)


def rounded(values):
    """Round float32 values to TF32; halves go away from zero."""
    return cut((values.view(torch.int32) + 0x1000).view(torch.float32))


def towards_zero(values):
    """Cut float64 values to float32."""
    near = values.float()
    return torch.where(near.abs() > values.abs(), near.nextafter(torch.zeros(())), near)


def instructions(a, b, total):
    """Add a product of TF32 matrices to a sum, 8 columns of the first one at a time."""
    for k in range(0, a.shape[1], 8):
        part = a[:, k : k + 8].double() @ b[k : k + 8].double()
        total = towards_zero(total.double() + part)
    return total


def ieee(a, b):
    total = torch.zeros(len(a), b.shape[1])
    for k in range(a.shape[1]):
        total = (total.double() + a[:, k, None].double() * b[k].double()).float()
    return total


def tf32(a, b):
    return instructions(cut(a), cut(b), torch.zeros(len(a), b.shape[1]))


def tf32x3(a, b):
    (large_a, large_b), zero = map(rounded, (a, b)), torch.zeros(len(a), b.shape[1])
    small_a, small_b = cut(a - large_a), cut(b - large_b)
    total = instructions(large_a, small_b, instructions(small_a, large_b, zero))
    return instructions(large_a, large_b, total)


def error(product, a, b):
    """Return the largest error, relative to the largest value."""
    exact = a.double() @ b.double()
    return ((product(a, b).double() - exact).abs().max() / exact.abs().max()).item()


SHAPES = {  # rows, sum, columns
    **{f"forward, H={H}": (256, H, 49) for H in (16, 32, 64, 128)},
    **{f"the map's gradient, {taps} taps": (256, taps, 64) for taps in (9, 25, 49)},
    "the states' gradient": (25, 64, 128),  # rows are summed 64 at a time
}


@pytest.mark.parametrize("shape", SHAPES)
def test_three_products_of_tf32_keep_the_digits_of_float32(shape):
    rows, inner, columns = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(s, generator=generator) for s in ((rows, inner), (inner, columns)))
    assert rounded(a).sub(a).abs().max() <= cut(a).sub(a).abs().max()
    errors = {product.__name__: error(product, a, b) for product in (ieee, tf32x3, tf32)}
    assert errors["tf32x3"] <= 4 * errors["ieee"]
    assert 100 * errors["ieee"] < errors["tf32"] < 2**-9
