"""Augmentation and normalisation of a batch, on any device.

All random draws come from the given generator. It may be on the CPU while the images are on an
accelerator: then the same seed draws the same numbers on all devices.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from effconv_data._checks import check_integer
from effconv_data.shards.pixel_statistics import SCALES

__all__ = ["horizontal_flip", "normalize", "pad_crop", "per_image"]


def pad_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad each image with zeros on all four sides and crop it to its size at a random position.

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
    B, C, H, W = images.shape
    corners = torch.randint(2 * padding + 1, (2, B), generator=generator, device=generator.device)
    padded = F.pad(images, (padding,) * 4)
    height, width = padded.shape[2:]
    # The first pixel of each kept row, as an index into the padded images' memory. Rows are copied
    # whole, which takes a fifth of the time of indexing by image, row and column. The indices are
    # computed on the images' device, from two draws per image. Copied from the host they would be
    # C * H per image, in memory that is not pinned, for which CUDA may make the host wait.
    top, left = _move(corners, images).view(2, B, 1, 1)
    planes = torch.arange(B * C, device=images.device).view(B, C, 1) * (height * width)
    rows = planes + (top + torch.arange(H, device=images.device)) * width + left
    kept = padded.flatten().unfold(0, W, 1).index_select(0, rows.flatten())
    return kept.view(B, C, H, W)


def horizontal_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

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
    chosen = coins * len(images) + torch.arange(len(images), device=coins.device)
    # From all images and their mirror images: copying whole images is faster than selecting pixels.
    return torch.cat([images, images.flip(3)]).index_select(0, _move(chosen, images))


def per_image(transform: Callable[[Tensor], Tensor]) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Build a batch augmentation from a random transform of one image, such as torchvision's v2.

    Such transforms draw from torch's global generator. Here each batch seeds it from the batch's
    own generator, and restores it. This is slower than the functions above, since it processes
    image by image.

    Args:
        transform: maps a uint8 image `(C, H, W)` to one of the same shape for all images.

    Returns:
        An `augment` function of images `(B, C, H, W)` and a generator.

    Examples:
        >>> turn = per_image(lambda image: image.rot90(int(torch.randint(4, ())), (1, 2)))
        >>> images = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)
        >>> turn(images, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 3, 8, 8])
    """

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        _check_batch(images)
        seed = int(torch.randint(1 << 62, (), generator=generator, device=generator.device))
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            # Not torch.manual_seed, which would seed all GPUs without restoring them.
            torch.default_generator.manual_seed(seed)
            if images.is_cuda:
                with torch.cuda.device(images.device):
                    torch.cuda.manual_seed(seed)
            return torch.stack([transform(image) for image in images])

    return augment


def normalize(
    images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor
) -> Tensor:
    """Scale samples, subtract the mean and divide by the standard deviation.

    Args:
        images: images `(B, C, H, W)` uint8, scaled to 0..1, or sequences `(B, C, T)` int16, scaled
            to -1..1.
        mean: `(C,)`, of each channel on that scale.
        std: `(C,)`, of each channel on that scale, above 0.

    Returns:
        float32 of the same shape; images in channels-last memory format, which convolutions read
        fastest.

    Raises:
        TypeError: if `images` is neither uint8 nor int16.
        ValueError: if `images` has another number of dimensions, or `mean` or `std` does not have C
            values.
    """
    if images.dtype not in SCALES:
        raise TypeError(
            f"images are {images.dtype}; pass 8-bit images, torch.uint8, or 16-bit sequences, "
            "torch.int16"
        )
    if images.dtype == torch.uint8:
        _check_batch(images)
    elif images.ndim != 3:
        raise ValueError(f"images have shape {tuple(images.shape)}; pass sequences (B, C, T)")
    C = images.shape[1]
    mean, std = (torch.as_tensor(x, dtype=torch.float32, device=images.device) for x in (mean, std))
    for name, values in (("mean", mean), ("std", std)):
        if values.shape != (C,):
            raise ValueError(
                f"{name} has shape {tuple(values.shape)}; images of {C} channels need ({C},)"
            )
    scale, column = SCALES[images.dtype], (C, *[1] * (images.ndim - 2))
    # In planes first: with three interleaved channels the arithmetic takes three times as long.
    pixels = images.float().sub_(scale * mean.view(column)).div_(scale * std.view(column))
    if images.ndim == 3:
        return pixels
    # Not contiguous(), which leaves the strides of a single channel as they are.
    return torch.empty_like(pixels, memory_format=torch.channels_last).copy_(pixels)


def _check_batch(images: Tensor) -> None:
    if images.ndim != 4:
        raise ValueError(f"images have shape {tuple(images.shape)}; pass a batch (B, C, H, W)")


def _move(draws: Tensor, images: Tensor) -> Tensor:
    """Copy draws to the images' device, without waiting for pending work of a GPU."""
    return draws.to(images.device, non_blocking=images.is_cuda)
