"""The layer."""

import torch
import torch.nn.functional as F
from effconv_kernels import assemble_kernels, gru_unroll
from torch import Tensor, nn


class HyperConv2d(nn.Module):
    """A convolution with a separate kernel for each image, which a GRU writes from an embedding.

    The output has the height and width of the input.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the outputs.
        kernel_size: s, so that the GRU runs for s * s timesteps.
        embedding: length of the embedding.
        hidden: units H of the GRU.
        generator: source of the initial values; None uses the global one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        embedding: int,
        hidden: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = kernel_size

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        bound = hidden**-0.5  # as in torch.nn.GRU
        self.weight_ih = uniform(bound, 3 * hidden, embedding)
        self.weight_hh = uniform(bound, 3 * hidden, hidden)
        self.bias_ih = uniform(bound, 3 * hidden)
        self.bias_hh = uniform(bound, 3 * hidden)
        taps = in_channels * kernel_size**2
        self.weight_out = uniform((hidden * taps) ** -0.5, out_channels * in_channels, hidden)
        self.bias_out = nn.Parameter(torch.zeros(out_channels * in_channels))
        self.width = nn.Parameter(torch.tensor([float(kernel_size)]))

    def kernels(self, embeddings: Tensor) -> Tensor:
        """Compute kernels `(N, c_out, c_in, s, s)` from embeddings `(N, embedding)`."""
        N, s = len(embeddings), self.kernel_size
        states = gru_unroll(
            F.linear(embeddings, self.weight_ih, self.bias_ih),
            self.weight_hh.expand(N, -1, -1),
            self.bias_hh.expand(N, -1),
            [s * s] * N,
        )
        kernels = assemble_kernels(
            states,
            self.weight_out.repeat(N, 1),
            self.bias_out.repeat(N),
            self.width.expand(N),
            sizes=[s] * N,
            channels=[(self.out_channels, self.in_channels)] * N,
            centre="aligned",
        )
        return torch.stack(kernels)

    def forward(self, images: Tensor, embeddings: Tensor) -> Tensor:
        """Convolve each of `(N, c_in, H, W)` images with the kernel of its embedding."""
        kernels = self.kernels(embeddings).flatten(0, 1)
        outputs = F.conv2d(images.flatten(0, 1), kernels, padding="same", groups=len(images))
        return outputs.unflatten(0, (len(images), self.out_channels))
