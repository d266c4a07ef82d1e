"""Arguments of `gru_unroll`, each drawn from a seed of its own."""

import torch

STEPS = [3, 5, 1]


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def tensors(rows, H, *, layers=3, batch=()):
    return [
        drawn(*batch, rows, 3 * H, seed=1),
        drawn(layers, 3 * H, H, seed=2),
        drawn(layers, 3 * H, seed=3),
        drawn(*batch, layers, H, seed=4),
    ]
