"""Networks and loaders of one's own, as a user of the command `effconv` has them."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def network(channels=3, classes=2):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


class Broken(nn.Sequential):
    def forward(self, images):
        raise TypeError("no such brush")


def broken():
    return Broken(*network())


def grey():
    return network(channels=1)


def pixels():
    return network()[:8]


def one_class():
    return network(classes=1)


def loaders(batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(64, 3, 8, 8, generator=generator), torch.arange(64) % 2
    images += labels[:, None, None, None]
    data = TensorDataset(images, labels)
    return DataLoader(data, batch_size, shuffle=True), DataLoader(data, 10)


def one_loader(batch_size, seed):
    return loaders(batch_size, seed)[0]


def as_bytes(batch_size, seed):
    pair = loaders(batch_size, seed)
    return tuple([(i.clamp(0, 1).mul(255).byte(), t) for i, t in loader] for loader in pair)


def from_one(batch_size, seed):
    return tuple([(i, t + 1) for i, t in loader] for loader in loaders(batch_size, seed))


def narrow_labels(batch_size, seed):
    return tuple([(i, t.int()) for i, t in loader] for loader in loaders(batch_size, seed))
