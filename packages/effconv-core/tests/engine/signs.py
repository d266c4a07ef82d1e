"""A small network, and sequences on which the size of its first kernel matters."""

import torch
from effconv_core import recipe
from torch import nn

BATCHES = 10


class Signs:
    """Sequences of signs that alternate in one class, and come in pairs in the other, in noise."""

    def __init__(self, batches: int = BATCHES, stop_at: int | None = None):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(0, 2, (batches, 16), generator=generator)
        steps = torch.arange(32) + torch.randint(0, 4, (batches, 16, 1), generator=generator)
        signs = torch.where(self.labels[..., None] == 1, steps // 2, steps) % 2 * 2.0 - 1
        noise = torch.randn(batches, 16, 1, 32, generator=generator)
        self.inputs = signs[:, :, None] + 0.3 * noise
        self.taken, self.stop_at = 0, stop_at

    def set_epoch(self, epoch):
        pass

    def __len__(self):
        return len(self.inputs)

    def __iter__(self):
        for pair in zip(self.inputs, self.labels, strict=True):
            self.taken += 1
            if self.taken == self.stop_at:
                raise KeyboardInterrupt
            yield pair


class Square(nn.Module):
    def forward(self, x):
        return x**2


def net(sizes=(3, 3), stem=1) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 4, 1),
        nn.Conv1d(4, 8, sizes[0], padding=sizes[0] // 2),
        Square(),
        nn.BatchNorm1d(8),
        nn.Conv1d(8, 4, sizes[1], padding=sizes[1] // 2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def config(**changes):
    return recipe("bank", **{"least_steps": 20, "race_steps": 24, "cnn_lr": 0.02, **changes})


def cost(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


ALLOWED = {"allowed": range(1, 14)}
