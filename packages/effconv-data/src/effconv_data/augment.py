"""Augmentation and normalisation of a batch, on whatever device it is.

Every random draw comes from the generator that is handed in. It may stay on the CPU while the
images are on an accelerator: then the same seed draws the same on every device.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from effconv_data._checks import check_integer

__all__ = ["horizontal_flip", "normalize", "pad_crop"]


def pad_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad every image with zeros on all four sides and crop it to its size at a random place.

    Args:
        images: `(B, C, H, W)`, any dtype.
        padding: pixels added to each side; each of the `(2 * padding + 1) ** 2` crops of an image
            is equally likely.
        generator: source of the draws.

    Returns:
        `(B, C, H, W)`, as `images`.

    Raises:
        TypeError: if `padding` is not an integer.
        ValueError: if `images` is not four-dimensional or `padding` is negative.
    """
    _check_batch(images)
    check_integer("padding", padding, 0)
    B, _, H, W = images.shape
    corners = torch.randint(2 * padding + 1, (2, B), generator=generator, device=generator.device)
    top, left = _move(corners, images)
    # A view of every crop there is, (B, C, 2p + 1, 2p + 1, H, W); the indexing copies one of each.
    crops = F.pad(images, (padding,) * 4).unfold(2, H, 1).unfold(3, W, 1)
    return crops[torch.arange(B, device=images.device), :, top, left]


def horizontal_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image left to right with probability one half.

    Args:
        images: `(B, C, H, W)`, any dtype.
        generator: source of the draws.

    Returns:
        `(B, C, H, W)`, as `images`.

    Raises:
        ValueError: if `images` is not four-dimensional.
    """
    _check_batch(images)
    coins = torch.randint(2, (len(images),), generator=generator, device=generator.device)
    mirrored = _move(coins, images).bool()[:, None, None, None]
    return torch.where(mirrored, images.flip(3), images)


def normalize(
    images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor
) -> Tensor:
    """Scale 8-bit images to 0..1, take the mean away and divide by the standard deviation.

    Args:
        images: `(B, C, H, W)` uint8.
        mean: `(C,)`, of each channel on the scale 0..1.
        std: `(C,)`, of each channel on the scale 0..1, above 0.

    Returns:
        `(B, C, H, W)` float32 in channels-last memory format, which convolutions read fastest.

    Raises:
        TypeError: if `images` is not uint8.
        ValueError: if `images` is not four-dimensional or `mean` or `std` does not have C values.
    """
    _check_batch(images)
    if images.dtype != torch.uint8:
        raise TypeError(f"images are {images.dtype}; pass 8-bit images, torch.uint8")
    C = images.shape[1]
    mean, std = (torch.as_tensor(x, dtype=torch.float32, device=images.device) for x in (mean, std))
    for name, values in (("mean", mean), ("std", std)):
        if values.shape != (C,):
            raise ValueError(
                f"{name} has shape {tuple(values.shape)}; images of {C} channels need ({C},)"
            )
    pixels = images.to(torch.float32, memory_format=torch.channels_last)
    return pixels.sub_(255 * mean[:, None, None]).div_(255 * std[:, None, None])


def _check_batch(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}; pass a batch (B, C, H, W)")


def _move(draws: Tensor, images: Tensor) -> Tensor:
    """Bring draws to the images' device, without waiting for what a GPU has yet to do."""
    return draws.to(images.device, non_blocking=images.is_cuda)
