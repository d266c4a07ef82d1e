"""N-Jet layers: convolutions whose kernels are sums of Gaussian derivatives of a learned scale.

Pintea et al., Resolution Learning in Deep Convolutional Networks Using Scale-Space Theory (2021),
https://arxiv.org/abs/2106.03412; with a scale for each filter, Tomen et al., Deep Continuous
Networks (2021), https://proceedings.mlr.press/v139/tomen21a.html.
"""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effconv_models._validation import check_positive
from effconv_models.layers import same_conv
from effconv_models.registry import register_model
from effconv_models.resnet import CifarResNet

__all__ = ["NJetConv", "with_njet"]

Scales = Literal["layer", "filter"]

EXTENT = 2.0
"""Standard deviations from a kernel's middle to its border, as in the authors' code."""


def gaussian_derivatives(sigma: Tensor, order: int, reach: int) -> Tensor:
    """Return sigma^i times the i-th derivative of a Gaussian, at integers from -reach to reach.

    That is (-1)^i He_i(x / sigma) g(x), with He_i the probabilists' Hermite polynomials and g
    scaled to the sum 1 over these integers.

    Args:
        sigma: standard deviations, of any shape.
        order: the highest i.
        reach: the last x.

    Returns:
        `(order + 1, *sigma.shape, 2 reach + 1)`.
    """
    x = torch.arange(-reach, reach + 1, dtype=sigma.dtype, device=sigma.device)
    x = x / sigma[..., None]
    gauss = torch.softmax(-0.5 * x.square(), -1)
    hermite = [torch.ones_like(x), x]
    for i in range(1, order):
        hermite.append(x * hermite[i] - i * hermite[i - 1])
    return torch.stack([(-1) ** i * hermite[i] * gauss for i in range(order + 1)])


class NJetConv(nn.Module):
    """Convolution with a sum of Gaussian derivatives, `(B, c_in, H, W)` to `(B, c_out, ...)`.

    The kernel is the sum over i + j <= order of a weight times sigma^(i + j) d^(i + j) g / dy^i
    dx^j, where g is a Gaussian of standard deviation sigma = 2^scale. Weights and scale are
    learned. The kernel has ceil(2 sigma + 0.5) taps on each side of its middle, so its size is
    learned too; outputs have ceil(H / stride) by ceil(W / stride) pixels at every size.

    The size depends on the value of `scale`, so a forward pass on a GPU waits for it.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        order: N of the N-jet, at least 1; (N + 1) (N + 2) / 2 weights take the place of a kernel's.
        sigma: initial standard deviation in pixels.
        scales: `"layer"` for one scale in all (N-JetNet), `"filter"` for one of each pair of input
            and output channel (DCN sigma^ji); the largest then sets the size.
        stride: step of the window. N-JetNet's own subsampling by sigma is not here.
        groups: groups of channels.
        generator: source of the initial values; None uses the global one.

    Raises:
        TypeError: if a number is not an integer.
        ValueError: if a number is not allowed.

    Examples:
        >>> layer = NJetConv(3, 8)
        >>> layer(torch.zeros(2, 3, 32, 32)).shape, layer.effective_size
        (torch.Size([2, 8, 32, 32]), (7, 7))
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        order: int = 3,
        sigma: float = 1.0,
        scales: Scales = "layer",
        stride: int = 1,
        groups: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        numbers = {"c_in": c_in, "c_out": c_out, "order": order, "stride": stride, "groups": groups}
        for name, number in numbers.items():
            setattr(self, name, check_positive(name, number))
        if c_in % groups or c_out % groups:
            raise ValueError(
                f"groups is {groups} for {c_in} and {c_out} channels; it must divide both"
            )
        if not 0 < sigma < math.inf:
            raise ValueError(f"sigma is {sigma}; a Gaussian's is above 0 and finite")
        if scales not in ("layer", "filter"):
            raise ValueError(f"scales is {scales!r}; pass 'layer' or 'filter'")
        each = (1, 1) if scales == "layer" else (c_out, c_in // groups)
        self.scale = nn.Parameter(torch.full(each, math.log2(sigma)))
        self.pairs = [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]
        self.weight = nn.Parameter(torch.empty(c_out, c_in // groups, len(self.pairs)))
        # The kernels start with the norm of He et al. (2015), by fan-out.
        lines = gaussian_derivatives(self.scale.detach().exp2(), order, self.reach)[:, 0, 0]
        squares = lines.square().sum(1)
        energy = sum(squares[i] * squares[j] for i, j in self.pairs).item()
        nn.init.normal_(
            self.weight, std=math.sqrt(2 * groups / (c_out * energy)), generator=generator
        )

    @property
    def reach(self) -> int:
        """Taps on each side of the kernel's middle.

        Raises:
            FloatingPointError: if a scale is not finite, as after a training that diverged.
        """
        sigma = self.scale.detach().exp2().max().item()
        if not math.isfinite(sigma):
            raise FloatingPointError(
                f"the largest sigma is {sigma}; lower the learning rate, and start again from the "
                "last checkpoint"
            )
        return math.ceil(EXTENT * sigma + 0.5)

    @property
    def effective_size(self) -> tuple[int, int]:
        """Height and width of the kernel."""
        return (2 * self.reach + 1,) * 2

    def sample(self) -> Tensor:
        """Return the kernel, `(c_out, c_in / groups, *effective_size)`."""
        lines = gaussian_derivatives(self.scale.exp2(), self.order, self.reach)
        rows, columns = zip(*self.pairs, strict=True)
        return torch.einsum("oik,koiy,koix->oiyx", self.weight, lines[[*rows]], lines[[*columns]])

    def forward(self, images: Tensor) -> Tensor:
        """Convolve with the current kernel."""
        kernel = self.sample()
        padding = kernel.shape[-1] // 2
        return F.conv2d(images, kernel, stride=self.stride, padding=padding, groups=self.groups)

    @torch.no_grad()
    def to_conv(self) -> nn.Conv2d:
        """Return a plain convolution with the current kernel."""
        with self.weight.device:
            conv = same_conv(
                self.c_in, self.c_out, self.effective_size[0], self.stride, groups=self.groups
            )
        conv = conv.to(self.weight.dtype)
        conv.weight.copy_(self.sample())
        return conv

    def extra_repr(self) -> str:
        """Return the layer's settings, with the current size of its kernel."""
        size = "x".join(map(str, self.effective_size))
        return f"{self.c_in}, {self.c_out}, order={self.order}, effective_size={size}"


def with_njet(
    model: nn.Module,
    *,
    order: int = 3,
    sigma: float = 1.0,
    scales: Scales = "layer",
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Return a copy of a model of this package in which N-Jet layers replace its convolutions.

    Those of more than one tap, the first too. Strides and output sizes stay.

    Args:
        model: a network whose convolutions are those of `same_conv`; it is not changed.
        order: see `NJetConv`.
        sigma: see `NJetConv`.
        scales: see `NJetConv`.
        generator: source of the initial values, on the model's device; None uses the global one.

    Raises:
        ValueError: if there is no such convolution, or one that has a bias, a dilation or another
            padding than `same_conv` gives.

    Examples:
        >>> from effconv_models import create_model
        >>> with_njet(create_model("cifar_resnet20")).layer1[0].conv1.effective_size
        (7, 7)
    """
    model = copy.deepcopy(model)
    convs = {
        name: conv
        for name, conv in model.named_modules()
        if isinstance(conv, nn.Conv2d) and max(conv.kernel_size) > 1
    }
    if not convs:
        raise ValueError(f"the {type(model).__name__} has no convolution of more than one tap")
    for name, conv in convs.items():
        size, stride = conv.kernel_size[0], conv.stride[0]
        same = same_conv(conv.in_channels, conv.out_channels, size, stride, groups=conv.groups)
        if conv.bias is not None or repr(conv) != repr(same):
            raise ValueError(
                f"layer {name!r} is {conv}, and N-Jet layers replace only {same}; change it"
            )
        with conv.weight.device:
            layer = NJetConv(
                conv.in_channels,
                conv.out_channels,
                order=order,
                sigma=sigma,
                scales=scales,
                stride=stride,
                groups=conv.groups,
                generator=generator,
            )
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.to(conv.weight.dtype).train(conv.training))
    return model


@partial(register_model, takes=None)
def njet_resnet32(
    *, num_classes: int = 10, in_channels: int = 3, generator: torch.Generator | None = None
) -> CifarResNet:
    """ResNet-32 for CIFAR of N-Jet layers of order 3, 0.52 M parameters."""
    model = CifarResNet(32, num_classes=num_classes, in_channels=in_channels, generator=generator)
    return with_njet(model, generator=generator)
