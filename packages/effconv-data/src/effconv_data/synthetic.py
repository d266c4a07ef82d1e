"""A synthetic set whose classes are visible at one scale: Gabor patches in white noise.

A single-channel image is white Gaussian noise and a few Gabor patches at random places with random
phases. The class is the orientation of its patches. `scale` is the full width of a patch in
pixels: its envelope has the standard deviation `scale / 3`, so that a window `scale` wide holds
97 % of its energy along either axis, and its wavelength is `1.25 * scale`. The filter that finds a
patch best in white noise, the patch itself, therefore has about `scale` by `scale` taps: a smaller
kernel throws signal away, and the further taps of a larger one hold little but noise.

Each patch is scaled to the same energy whatever its scale, phase and place: `contrast` is the
ratio of signal amplitude to noise standard deviation behind its matched filter. The energy of the
signal over that of the noise is thus the same at all scales; how hard the set is to learn is set
by `contrast` and by how much of a patch a kernel covers.
"""

import math

import torch
from torch import Tensor

from effconv_data._checks import check_integer
from effconv_data._seeding import SYNTHESIS, seeded_generator
from effconv_data.loading.batches import Batches
from effconv_data.loading.resident import ResidentBatches

__all__ = ["synthetic"]

# Four standard deviations of the noise fit on either side of the middle grey, so hardly a pixel
# is clipped, and the rounding adds less than a ten-thousandth of the noise's energy.
GREY, NOISE = 128, 32
SPLITS = ("train", "test")


def synthetic(
    scale: float,
    *,
    split: str = "train",
    samples: int = 4000,
    image_size: int = 24,
    num_classes: int = 4,
    patches: int = 4,
    contrast: float = 3.5,
    batch_size: int,
    seed: int = 0,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """Draw a set in which the orientation of patches `scale` pixels wide determines the class.

    Args:
        scale: full width of a patch in pixels, from 2 to `image_size`; a much smaller kernel misses
            signal, a larger one gains little.
        split: `"train"` or `"test"`; the two are independent.
        samples: number of images, spread evenly over the classes.
        image_size: height and width of an image in pixels.
        num_classes: number of orientations, evenly spaced over 180 degrees.
        patches: patches in an image.
        contrast: signal amplitude of one patch over noise standard deviation behind the patch's
            matched filter; higher is easier.
        batch_size: samples in a batch of this rank.
        seed: seed of the images and of the order of training.
        device: device of the images and batches.
        rank: index of the part of each global batch for this process, from 0.
        world_size: number of ranks.

    Returns:
        Batches of `(B, 1, image_size, image_size)` in which the noise has unit variance.

    Raises:
        TypeError: if a count or the seed is not an integer.
        ValueError: if an argument is out of its range.

    Examples:
        >>> batches = synthetic(5, samples=100, batch_size=50)
        >>> batches.image_shape, batches.num_classes, len(batches)
        ((1, 24, 24), 4, 2)
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; pass 'train' or 'test'")
    for name, value, least in (
        ("samples", samples, 1),
        ("image_size", image_size, 2),
        ("num_classes", num_classes, 2),
        ("patches", patches, 1),
        ("seed", seed, 0),
    ):
        check_integer(name, value, least)
    if not 2 <= scale <= image_size:
        raise ValueError(
            f"scale is {scale} pixels; a patch is from 2 to image_size = {image_size} pixels wide, "
            "so change one of them"
        )
    if not 0 <= contrast < math.inf:
        raise ValueError(f"contrast is {contrast}; it must be 0 or more and finite, so change it")

    generator = seeded_generator(seed, SYNTHESIS, SPLITS.index(split))
    labels = torch.arange(samples) % num_classes
    labels = labels[torch.randperm(samples, generator=generator)]
    signal = torch.randn(samples, image_size, image_size, generator=generator)
    for _ in range(patches):
        signal += contrast * _patch(labels * (math.pi / num_classes), scale, image_size, generator)
    images = signal.mul_(NOISE).add_(GREY).round_().clamp_(0, 255).to(torch.uint8)
    return ResidentBatches(
        images[:, None],
        labels,
        classes=[f"{180 * label / num_classes:g} degrees" for label in range(num_classes)],
        batch_size=batch_size,
        training=split == "train",
        mean=(GREY / 255,),
        std=(NOISE / 255,),
        seed=seed,
        device=device,
        rank=rank,
        world_size=world_size,
        name=f"synthetic-{scale:g}",
    )


def _patch(angles: Tensor, scale: float, image_size: int, generator: torch.Generator) -> Tensor:
    """Draw one Gabor patch of unit energy into each image: angles `(N,)` in, `(N, S, S)` out.

    The wave runs along the angle, in radians from the x axis; the patch lies wholly in the image.
    """
    N = len(angles)
    sigma, wavelength = scale / 3, 1.25 * scale
    places = torch.rand(2, N, generator=generator) * (image_size - scale) + (scale - 1) / 2
    phases = torch.rand(N, generator=generator) * (2 * math.pi)
    pixels = torch.arange(image_size, dtype=torch.float32)
    y, x = pixels - places[:, :, None]
    frequency = 2 * math.pi / wavelength
    along_x = x * (torch.cos(angles) * frequency)[:, None] + phases[:, None]
    along_y = y * (torch.sin(angles) * frequency)[:, None]
    wave = torch.cos(along_y[:, :, None] + along_x[:, None, :])
    envelope_x, envelope_y = (torch.exp(-(d**2) / (2 * sigma**2)) for d in (x, y))
    patch = wave * envelope_y[:, :, None] * envelope_x[:, None, :]
    return patch / patch.flatten(1).norm(dim=1)[:, None, None]
