"""Reference implementations of the operators, slow and plain: the oracle of the tests.

Everything here is ordinary differentiable PyTorch, one layer, one timestep, one tap at a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def gru_unroll_reference(
    input_gates: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    steps: Sequence[int],
    initial_state: Tensor | None = None,
    *,
    reverse: bool = False,
) -> Tensor:
    """Run each GRU, one layer and one timestep at a time.

    Arguments, result and gate order are those of `effconv_kernels.gru_unroll`, without a batch.
    """
    rows: list[Tensor] = []
    for layer, count in enumerate(steps):
        hidden = weight_hh.new_zeros(weight_hh.shape[-1])
        if initial_state is not None:
            hidden = initial_state[layer]
        bias = 0 if bias_hh is None else bias_hh[layer]
        first, states = len(rows), [hidden] * count
        for t in range(count):
            place = count - 1 - t if reverse else t
            stepped = input_gates.shape[0] != len(steps)
            i_r, i_z, i_n = input_gates[first + place if stepped else layer].chunk(3)
            h_r, h_z, h_n = (weight_hh[layer] @ hidden + bias).chunk(3)
            reset = torch.sigmoid(i_r + h_r)
            update = torch.sigmoid(i_z + h_z)
            candidate = torch.tanh(i_n + reset * h_n)
            hidden = (1 - update) * candidate + update * hidden
            states[place] = hidden
        rows += states
    return torch.stack(rows)


def mask_reference(soft_size: Tensor, size: int, centre: str) -> Tensor:
    """Compute EffConv Eq. 6 tap by tap, as a `(size, size)` tensor."""
    middle = soft_size / 2 if centre == "paper" else (size + 1) / 2
    rows = []
    for i in range(1, size + 1):
        row = []
        for j in range(1, size + 1):
            row.append(torch.exp(-((i - middle) ** 2 + (j - middle) ** 2) / soft_size**2))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def assemble_kernels_reference(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor,
    *,
    sizes: Sequence[int],
    channels: Sequence[tuple[int, int]],
    centre: str = "paper",
) -> list[Tensor]:
    """Map, reshape and mask each layer's hidden states, one tap at a time (EffConv Eq. 5 to 7).

    Arguments and result are those of `effconv_kernels.assemble_kernels`.
    """
    kernels = []
    first_state = first_row = 0
    for layer, (size, (c_out, c_in)) in enumerate(zip(sizes, channels, strict=True)):
        rows = slice(first_row, first_row + c_out * c_in)
        mask = mask_reference(soft_sizes[layer], size, centre)
        taps = []
        for t in range(size * size):
            raw = weight[rows] @ hidden[first_state + t] + bias[rows]
            taps.append(raw.view(c_out, c_in) * mask[t // size, t % size])
        kernels.append(torch.stack(taps, dim=-1).view(c_out, c_in, size, size))
        first_state += size * size
        first_row += c_out * c_in
    return kernels
