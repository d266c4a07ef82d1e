"""Write the convolutions of a small network for each sample of a batch.

`python hypernetwork_batch.py` prints the error on shifts that the network has not seen.

The task is to move a signal by a given number of steps, a fraction too. A code of the shift sets
the initial states of a GRU a layer; all GRUs run over the batch with shared weights, and all
kernels of all samples come of one call of each operator.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from effconv_kernels import assemble_kernels, gru_unroll
from torch import Tensor, nn

TAPS = 9


class WrittenNetwork(nn.Module):
    """A stack of 1D convolutions whose kernels GRUs write from the code of each sample.

    Args:
        channels: of the input, between the layers, and of the output.
        code: length of the codes.
        hidden: units H of each GRU.
    """

    def __init__(self, channels: list[int], code: int, hidden: int) -> None:
        super().__init__()
        self.pairs = [(c_out, c_in) for c_in, c_out in pairwise(channels)]
        layers, rows = len(self.pairs), sum(c_out * c_in for c_out, c_in in self.pairs)
        bound = hidden**-0.5

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.start = nn.Sequential(
            nn.Linear(code, 64), nn.Tanh(), nn.Linear(64, layers * hidden), nn.Tanh()
        )
        self.places = uniform(layers * TAPS, 3 * hidden)  # an input of its own for each tap
        self.weight_hh = uniform(layers, 3 * hidden, hidden)
        self.bias_hh = uniform(layers, 3 * hidden)
        self.weight, self.bias = uniform(rows, hidden), nn.Parameter(torch.zeros(rows))

    def kernels(self, codes: Tensor) -> list[Tensor]:
        """Write a kernel `(B, c_out, c_in, taps)` for each layer from codes `(B, code)`."""
        layers, _, H = self.weight_hh.shape
        states = gru_unroll(
            self.places.expand(len(codes), -1, -1),
            self.weight_hh,
            self.bias_hh,
            [TAPS] * layers,
            initial_state=self.start(codes).unflatten(1, (layers, H)),
        )
        # The samples of a layer share its map, so they are an axis of one kernel.
        states = states.unflatten(1, (layers, TAPS)).transpose(0, 1)
        kernels = assemble_kernels(
            states.flatten(0, 2),
            self.weight,
            self.bias,
            None,
            sizes=[(len(codes), TAPS)] * layers,
            channels=self.pairs,
        )
        return [kernel.movedim(2, 0) for kernel in kernels]

    def forward(self, signals: Tensor, codes: Tensor) -> Tensor:
        """Map `(B, c_in, N)` to `(B, c_out, N)`, each sample by its kernels."""
        batch = len(signals)
        for kernel in self.kernels(codes):
            found = F.conv1d(
                signals.flatten(0, 1)[None], kernel.flatten(0, 1), padding="same", groups=batch
            )
            signals = found[0].unflatten(0, (batch, -1))
        return signals


def draw(batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw signals `(B, 1, 32)`, shifts `(B, 1)` in steps, and the moved signals."""
    spectrum = torch.randn(batch, 1, 17, dtype=torch.cfloat, generator=generator)
    spectrum[..., 6:] = 0  # slow waves alone, whose values between the steps are known
    shifts = 5 * torch.rand(batch, 1, generator=generator) - 2.5
    turned = spectrum * torch.exp(-2j * torch.pi * torch.arange(17) / 32 * shifts.unsqueeze(2))
    signals, moved = (torch.fft.irfft(s, 32, norm="ortho") for s in (spectrum, turned))
    return signals, shifts, moved


def main(steps: int = 250) -> float:
    """Train, print and return the squared error on new shifts over the mean square."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    network = WrittenNetwork([1, 3, 1], code=1, hidden=16)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)

    def error(batch: int) -> Tensor:
        signals, shifts, moved = draw(batch, generator)
        inner = slice(2 * (TAPS // 2), -2 * (TAPS // 2))  # where no kernel reaches past the ends
        found = network(signals, shifts)[..., inner]
        return (found - moved[..., inner]).square().mean() / moved[..., inner].square().mean()

    for _ in range(steps):
        optimizer.zero_grad()
        error(32).backward()
        optimizer.step()
    with torch.no_grad():
        found = error(500).item()
    print(f"squared error over mean square {found:.4f}")
    return found


if __name__ == "__main__":
    main()
