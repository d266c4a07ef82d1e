"""A family of filters to be learned from examples: derivatives of a Gaussian along an angle."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hypernetwork_layer.layer import HyperConv2d

SIZE = 3
"""Height and width of the filters."""
DEVIATION = 0.9
"""Standard deviation of the Gaussian, in pixels."""
IMAGE = 12
"""Height and width of the images in pixels."""


def embed(angles: Tensor) -> Tensor:
    """Return `(N, 2)`, the cosine and sine of `(N,)` angles."""
    return torch.stack([angles.cos(), angles.sin()], 1)


def filtered(images: Tensor, angles: Tensor) -> Tensor:
    """Filter `(N, 1, H, W)` images, each by the derivative of a Gaussian along its angle."""
    places = torch.arange(SIZE, dtype=images.dtype) - SIZE // 2
    down, right = torch.meshgrid(places, places, indexing="ij")
    gaussian = torch.exp(-(down**2 + right**2) / (2 * DEVIATION**2))
    along = angles.cos().view(-1, 1, 1) * right + angles.sin().view(-1, 1, 1) * down
    kernels = (along * gaussian).unsqueeze(1)
    outputs = F.conv2d(images.flatten(0, 1), kernels, padding="same", groups=len(images))
    return outputs.unsqueeze(1)


def fit(
    layer: HyperConv2d,
    angles: Tensor,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
) -> list[float]:
    """Train on images of noise, filtered at given angles; return the error of each step.

    Args:
        layer: layer of one channel in and out, trained in place.
        angles: the training angles.
        steps: steps of Adam, whose rate falls to zero along a cosine.
        batch_size: images per step.
        learning_rate: rate of the first step.
        generator: source of images and angles.
    """
    optimizer = torch.optim.Adam(layer.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        chosen = angles[torch.randint(len(angles), (batch_size,), generator=generator)]
        loss = relative_error(layer, chosen, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def relative_error(layer: HyperConv2d, angles: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mean squared error relative to that of zero output, on one noise image per angle.

    A convolution with one kernel for all angles of a circle cannot do better than 1.
    """
    images = torch.randn(len(angles), 1, IMAGE, IMAGE, generator=generator)
    wanted = filtered(images, angles)
    return (layer(images, embed(angles)) - wanted).square().mean() / wanted.square().mean()
