"""Convolution by fast Fourier transform, for kernels with many taps."""

from collections.abc import Sequence

import torch
from torch import Tensor


def fft_conv(images: Tensor, kernel: Tensor, *, stride: Sequence[int], groups: int = 1) -> Tensor:
    """Convolve without padding, as `torch.nn.functional.conv2d` does, by Fourier transforms.

    The time hardly depends on the number of taps. Half precision is computed in float32.

    Args:
        images: `(B, c_in, *lengths)`, one axis or more.
        kernel: `(c_out, c_in / groups, *taps)`, no longer than the images on any axis.
        stride: step of the window on each axis. All positions are computed, and those in between
            are dropped.
        groups: groups of channels.

    Returns:
        `(B, c_out, *outputs)` in the type of the images.
    """
    axes = tuple(range(2, images.dim()))
    lengths, taps = images.shape[2:], kernel.shape[2:]
    dtype = torch.promote_types(images.dtype, torch.float32)
    # A circular length of the image is enough, because only outputs without padding are kept.
    circular = [_fast_length(length) for length in lengths]
    spectra = torch.fft.rfftn(images.to(dtype), circular, axes).unflatten(1, (groups, -1))
    filters = torch.fft.rfftn(kernel.to(dtype), circular, axes).unflatten(0, (groups, -1))
    product = torch.einsum("bgi...,goi...->bgo...", spectra, filters.conj()).flatten(1, 2)
    outputs = torch.fft.irfftn(product, circular, axes)
    for axis, length, tap in zip(axes, lengths, taps, strict=True):
        outputs = outputs.narrow(axis, 0, length - tap + 1)
    return outputs[(..., *(slice(None, None, step) for step in stride))].to(images.dtype)


def _fast_length(length: int) -> int:
    """Return the next even length whose only prime factors are 2, 3 and 5."""
    length += length % 2
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 2
