"""FlexConvs at a higher resolution than they were trained at."""

import copy
import math
import warnings

import torch
from torch import Tensor, nn

from effconv_models._validation import check_positive
from effconv_models.flexconv.conv import FlexConv, flexconvs

__all__ = ["refine", "resolution_errors"]

TOLERATED = 0.1
"""Change of a kernel's response from which `refine` warns."""


def refine(model: nn.Module, factor: int) -> nn.Module:
    """Return a copy of a model for inputs of `factor` times the resolution.

    Each kernel is sampled on a grid `factor` times as fine and divided by the growth of its taps,
    so that a layer responds to a larger image as it did to the smaller one, as far as the coarse
    grid could hold its frequencies. Strides stay as they are, and so do the statistics of batch
    norms: estimate them again on images of the new resolution, which needs no labels, by
    `torch.optim.swa_utils.update_bn(batches, refined)`.

    Where a kernel's response changes by more than a tenth, see `resolution_errors`, a `UserWarning`
    tells it. `FlexConvConfig().on_grid(taps)` of the training reduces it for small images, hardly
    so without a mask; after a training a third and more may be left.

    Args:
        model: a network with FlexConv layers, trained at the lower resolution.
        factor: scale of height and width.

    Raises:
        TypeError: if the factor is not an integer.
        ValueError: if it is below 1, or the model has no FlexConv layer.
    """
    check_positive("factor", factor)
    fine = copy.deepcopy(model)
    for layer in flexconvs(fine).values():
        layer.grid = tuple((taps - 1) * factor + 1 for taps in layer.grid)
        layer.margins = tuple((before * factor, after * factor) for before, after in layer.margins)
        layer.gain /= factor ** len(layer.grid)
    errors = _errors(model, fine)
    changed = [error for error in errors.values() if error > TOLERATED]
    if changed:
        warnings.warn(
            f"{len(changed)} of {len(errors)} kernels respond otherwise at {factor} times the "
            f"resolution, by up to {max(changed):.0%}, since the coarse grid could not hold their "
            "frequencies; estimate the statistics of batch norms again with "
            "torch.optim.swa_utils.update_bn, and train with FlexConvConfig().on_grid(taps), which "
            "reduces it",
            stacklevel=2,
        )
    return fine


def resolution_errors(model: nn.Module, factor: int = 2) -> dict[str, float]:
    """Return for each FlexConv how much its response changes at a higher resolution, by name.

    The error is |F - C| / |C|, where C and F are the Fourier transforms of the kernel on its grid
    and on one `factor` times as fine, at the frequencies that the coarse grid has. Only frequencies
    that the coarse grid cannot hold make it large: they fold over.

    Args:
        model: a network with FlexConv layers.
        factor: scale of height and width.

    Raises:
        TypeError: if the factor is not an integer.
        ValueError: if it is below 1, or the model has no FlexConv layer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _errors(model, refine(model, factor))


def _errors(coarse: nn.Module, fine: nn.Module) -> dict[str, float]:
    """Return `resolution_errors` of a model and its refined copy."""
    refined, errors = flexconvs(fine), {}
    for name, layer in flexconvs(coarse).items():
        before, after = (_spectrum(each, layer.grid) for each in (layer, refined[name]))
        errors[name] = ((after - before).norm() / before.norm()).item()
    return errors


@torch.no_grad()
def _spectrum(layer: FlexConv, coarse: tuple[int, ...]) -> Tensor:
    """Transform a kernel to the frequencies of a coarse grid, `(c_out, c_in, *coarse)`."""
    values = layer.sample().to(torch.complex64)
    for (first, last), taps, origin, number in zip(
        layer.window, layer.grid, layer.origins, coarse, strict=True
    ):
        places = torch.arange(first, last + 1, device=values.device) - origin
        places = places * ((number - 1) / (taps - 1))  # in taps of the coarse grid
        cycles = torch.arange(number, device=values.device) - number // 2
        wave = torch.exp(-2j * math.pi * cycles[:, None] * places / number)
        # The axis that is transformed moves to the end, and so the next one to its place.
        values = torch.tensordot(values, wave, dims=([2], [1]))
    return values
