"""Reference implementations of the operators, slow and plain: the oracle of the tests.

Everything here is ordinary differentiable PyTorch, one layer, one timestep, one tap at a time.
"""

from collections.abc import Sequence
from itertools import product

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


def mask_value_reference(
    place: Sequence[int], shape: Sequence[int], soft_sizes: Sequence[Tensor | None], centre: str
) -> Tensor | float:
    """Compute EffConv Eq. 6 at one tap, whose place counts from 1 along each axis.

    An axis whose soft size is None has no part in it.
    """
    value = 1.0
    for i, size, v in zip(place, shape, soft_sizes, strict=True):
        if v is not None:
            middle = v / 2 if centre == "paper" else (size + 1) / 2
            value = value * torch.exp(-((i - middle) ** 2) / v**2)
    return value


def mask_reference(soft_size: Tensor, size: int, centre: str) -> Tensor:
    """Compute EffConv Eq. 6 tap by tap, as a `(size, size)` tensor."""
    shape, both = (size, size), (soft_size, soft_size)
    taps = range(1, size + 1)
    rows = [
        torch.stack([mask_value_reference((i, j), shape, both, centre) for j in taps]) for i in taps
    ]
    return torch.stack(rows)


def assemble_kernels_reference(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    soft_sizes: Tensor | None,
    *,
    sizes: Sequence[int | Sequence[int]],
    channels: Sequence[tuple[int, int]],
    axes: Sequence[Sequence[int | None]] | None = None,
    centre: str = "paper",
) -> list[Tensor]:
    """Map, reshape and mask each layer's hidden states, one tap at a time (EffConv Eq. 5 to 7).

    Arguments and result are those of `effconv_kernels.assemble_kernels`.
    """
    kernels = []
    first_state = first_row = 0
    for layer, (size, (c_out, c_in)) in enumerate(zip(sizes, channels, strict=True)):
        shape = (size, size) if isinstance(size, int) else tuple(size)
        ruled = [layer] * len(shape) if axes is None else axes[layer]
        v = [None if soft_sizes is None or a is None else soft_sizes[a] for a in ruled]
        rows = slice(first_row, first_row + c_out * c_in)
        taps = []
        for t, place in enumerate(product(*(range(1, extent + 1) for extent in shape))):
            raw = weight[rows] @ hidden[first_state + t] + bias[rows]
            taps.append(raw.view(c_out, c_in) * mask_value_reference(place, shape, v, centre))
        kernels.append(torch.stack(taps, dim=-1).view(c_out, c_in, *shape))
        first_state += len(taps)
        first_row += c_out * c_in
    return kernels
