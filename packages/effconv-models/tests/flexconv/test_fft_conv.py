"""Convolution by Fourier transforms is the direct one."""

import torch
import torch.nn.functional as F
from effconv_models.flexconv.fft_conv import _fast_length, fft_conv
from hypothesis import given, settings
from hypothesis import strategies as st


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=3),
    fraction=st.floats(0, 1),
    stride=st.integers(1, 3),
    groups=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_fft_equals_direct(lengths, fraction, stride, groups, seed):
    taps = [1 + int(fraction * (length - 1)) for length in lengths]
    images = random(2, 2 * groups, *lengths, seed=seed)
    kernel = random(3 * groups, 2, *taps, seed=seed + 1)
    axes = len(lengths)
    conv = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    torch.testing.assert_close(
        fft_conv(images, kernel, stride=[stride] * axes, groups=groups),
        conv(images, kernel, stride=stride, groups=groups),
        rtol=1e-10,
        atol=1e-10,
    )


def test_fft_of_half_precision_is_computed_in_float32():
    images, kernel = random(1, 2, 12, 12), random(3, 2, 7, 7)
    exact = fft_conv(images, kernel, stride=[1, 1])
    half = fft_conv(images.bfloat16(), kernel.bfloat16(), stride=[1, 1])
    assert half.dtype == torch.bfloat16
    rounded = fft_conv(images.bfloat16().double(), kernel.bfloat16().double(), stride=[1, 1])
    # One rounding of the result to 8 bits.
    torch.testing.assert_close(half.double(), rounded, rtol=2**-8, atol=1e-4)
    assert (half.double() - exact).abs().max() > 1e-6


def test_fast_lengths_are_even_and_of_small_factors():
    assert [_fast_length(n) for n in (1, 2, 3, 11, 13, 33, 47, 64, 97)] == [
        *(2, 2, 4, 12, 16, 36, 48, 64, 100)
    ]
