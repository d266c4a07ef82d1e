"""The paper's recipe against a slow, literal transcription of EffConv Algorithm 1.

The transcription shares no code with the packages: one torch.nn.GRU a layer, one timestep's values
for one kernel position, equations as printed. Only the initial values are copied over.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from effconv_core import SearchableCNN, recipe
from torch import nn

BUDGET = 2000.0


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 10, 3, stride=2, padding=1, bias=True),
        nn.BatchNorm2d(10),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 4),
    ).double()


def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        labels = torch.randint(4, (16,), generator=generator)
        images = torch.randn(16, 3, 11, 11, generator=generator, dtype=torch.float64)
        yield images + labels.view(-1, 1, 1, 1), labels


class Transcription:
    """Algorithm 1, line by line, for the network above."""

    k, tau, b, lam = 3, 3.0, -0.35, 2.0

    def __init__(self, model, ours):
        self.cnn = copy.deepcopy(model)
        self.channels = [(8, 6), (10, 8)]
        self.z, self.size_gru = self.gru(ours.size_predictor.gru, 0)
        self.heads = [nn.Linear(64, 1).double() for _ in range(2)]
        for layer, head in enumerate(self.heads):
            head.weight.data = ours.size_predictor.head_weight.data[layer : layer + 1].clone()
            head.bias.data = ours.size_predictor.head_bias.data[layer : layer + 1].clone()
        kernels = ours.kernel_predictor
        self.z_prime, self.grus, self.maps = [], [], []
        first = 0
        for layer, (c_out, c_in) in enumerate(self.channels):
            z, gru = self.gru(kernels.grus, layer)
            linear = nn.Linear(64, c_out * c_in).double()
            rows = slice(first, first + c_out * c_in)
            linear.weight.data = kernels.weight.data[rows].clone()
            linear.bias.data = kernels.bias.data[rows].clone()
            first += c_out * c_in
            self.z_prime.append(z)
            self.grus.append(gru)
            self.maps.append(linear)
        self.rest = [
            p for name, p in self.cnn.named_parameters() if name not in ("3.weight", "6.weight")
        ]

    @staticmethod
    def gru(source, layer):
        gru = nn.GRU(64, 64).double()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(gru, f"{name}_l0").data = getattr(source, name).data[layer].clone()
        return source.z[layer].clone(), gru

    def optimizers(self, rates):
        size = [p for m in [self.size_gru, *self.heads] for p in m.parameters()]
        kernel = [p for m in [*self.grus, *self.maps] for p in m.parameters()]
        return [
            torch.optim.AdamW(parameters, lr=lr, weight_decay=0.001)
            for parameters, lr in zip([size, kernel, self.rest], rates)
        ]

    def sizes(self):
        """Line 2: Eq. 1 and 2."""
        soft, sizes, state = [], [], None
        for head in self.heads:
            output, state = self.size_gru(self.z.view(1, 64), state)
            x = head(output[0])[0]
            v = self.k * torch.tanh(x / self.tau + self.b) + self.k + 1
            soft.append(v)
            sizes.append(int(torch.round(v).item()))
        return soft, sizes

    def kernel(self, layer, v, s):
        """Lines 3 to 5: Eq. 5, 6, 7."""
        c_out, c_in = self.channels[layer]
        kernel, state, c = torch.zeros(c_out, c_in, s, s, dtype=torch.float64), None, v / 2
        for i in range(1, s + 1):
            for j in range(1, s + 1):
                output, state = self.grus[layer](self.z_prime[layer].view(1, 64), state)
                w_hat = self.maps[layer](output[0]).view(c_out, c_in)
                m = torch.exp(-((i - c) ** 2 + (j - c) ** 2) / v**2)
                place = torch.zeros_like(kernel)
                place[:, :, i - 1, j - 1] = 1
                kernel = kernel + place * (w_hat * m).view(c_out, c_in, 1, 1)
        return kernel

    def forward(self, images, kernels):
        x = self.cnn[2](self.cnn[1](self.cnn[0](images)))
        for kernel, bias, stride, after in [
            (kernels[0], None, 1, self.cnn[4:6]),
            (kernels[1], self.cnn[6].bias, 2, self.cnn[7:]),
        ]:
            s = kernel.shape[-1]
            before, behind = (s - 1) // 2, s // 2
            x = after(F.conv2d(F.pad(x, (before, behind, before, behind)), kernel, bias, stride))
        return x

    def step(self, images, labels, optimizers):
        soft, sizes = self.sizes()
        kernels = [self.kernel(layer, soft[layer], sizes[layer]) for layer in range(2)]
        classification = F.cross_entropy(self.forward(images, kernels), labels)
        # Line 7: Eq. 3 (with the rest of the network, as the papers' tables count) and Eq. 4;
        # the straight-through estimator passes d p / d s on to v.
        p = sum(c_out * c_in * s * s for (c_out, c_in), s in zip(self.channels, sizes))
        p += sum(parameter.numel() for parameter in self.rest)
        sign = 1.0 if p > BUDGET else -1.0
        parameter_loss = math.log(p / BUDGET) if p > BUDGET else math.log(BUDGET / p)
        slopes = [2 * o * i * s * sign / p for (o, i), s in zip(self.channels, sizes)]
        surrogate = sum(slope * v for slope, v in zip(slopes, soft))
        for optimizer in optimizers:
            optimizer.zero_grad()
        (classification + self.lam * surrogate).backward()
        for optimizer in optimizers:
            optimizer.step()
        return classification.item(), self.lam * parameter_loss, sizes


@pytest.mark.parametrize(
    "rates",
    [(1e-4, 1e-3, 1e-4), (0.3, 1e-3, 1e-4)],
    ids=["papers rates", "sizes that move"],
)
def test_ten_steps_equal_the_literal_algorithm(rates):
    model = network()
    config = recipe("paper", size_lr=rates[0])
    assert (config.kernel_lr, config.cnn_lr) == rates[1:]
    ours = SearchableCNN(model, config)
    theirs = Transcription(model, ours)
    optimizer, optimizers = torch.optim.AdamW(ours.parameter_groups()), theirs.optimizers(rates)
    seen = set()
    for images, labels in batches():
        loss = F.cross_entropy(ours(images), labels)
        budget_loss = ours.budget_loss(BUDGET)
        optimizer.zero_grad()
        (loss + budget_loss).backward()
        optimizer.step()
        expected_loss, expected_budget_loss, sizes = theirs.step(images, labels, optimizers)
        assert ours.sizes == sizes
        assert loss.item() == pytest.approx(expected_loss, abs=1e-8)
        assert budget_loss.item() == pytest.approx(expected_budget_loss, abs=1e-8)
        seen.add(tuple(sizes))

    if rates[0] > 1e-4:
        assert len(seen) > 1
    first = 0
    kernels, size = ours.kernel_predictor, ours.size_predictor
    for layer, (gru, linear) in enumerate(zip(theirs.grus, theirs.maps)):
        rows = slice(first, first + linear.out_features)
        first += linear.out_features
        close(kernels.weight[rows], linear.weight)
        close(kernels.bias[rows], linear.bias)
        close(size.head_weight[layer], theirs.heads[layer].weight[0])
        close(size.head_bias[layer], theirs.heads[layer].bias[0])
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            close(getattr(kernels.grus, name)[layer], getattr(gru, f"{name}_l0"))
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        close(getattr(size.gru, name)[0], getattr(theirs.size_gru, f"{name}_l0"))
    for mine, other in zip(ours.model.parameters(), theirs.rest):
        close(mine, other)


def close(mine, other):
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)
