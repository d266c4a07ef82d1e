"""Transposed convolutions of other sizes keep the size of their output."""

import pytest
import torch
from effconv_core import (
    Budget,
    Latency,
    Macs,
    SearchableCNN,
    apply_plan,
    recipe,
    search,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

QUICK = {"epochs": 1, "least_steps": 0, "race_steps": 0, "finalists": 2, "exploration": 1.0}


def network(*layers):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), *layers)


def mean_square(outputs, _):
    return outputs.square().mean()


@settings(deadline=None, max_examples=40)
@given(
    size=st.integers(2, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    more=st.integers(0, 3),
    groups=st.sampled_from([1, 2]),
    axes=st.integers(1, 3),
)
def test_any_transposed_layer_keeps_its_output_size(
    size, stride, dilation, padding, more, groups, axes
):
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    more = min(more, max(stride, dilation) - 1)
    torch.manual_seed(0)
    up = kind(4, 6, size, stride, padding, more, groups, dilation=dilation)
    model = nn.Sequential((nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](2, 4, 1), up)
    x = torch.randn(2, 2, *[5, 6, 7][:axes])
    searchable = SearchableCNN(model, recipe("bank"), searched="1", example=x).eval()
    wanted, allowed = model(x), searchable.space.ranges[0]
    assert {size, size + 2} <= set(allowed) or size + 2 > allowed.stop
    for own in allowed:
        cnn = searchable.warm_start({"1": own})
        assert cnn(x).shape == wanted.shape
        torch.testing.assert_close(cnn(x), searchable.forward_at([own], x))
        assert sum(p.numel() for p in cnn.parameters()) == searchable.cost([own])
        assert type(cnn[1]) is kind


def test_the_window_stays_where_it_was():
    up = nn.ConvTranspose2d(1, 1, 3, 2, 1, 1, bias=False)
    x = torch.zeros(1, 1, 7, 7)
    x[0, 0, 3, 3] = 1.0
    for size in (1, 3, 5, 7):
        other = apply_plan(nn.Sequential(up), {"0": size})
        other[0].weight.data.fill_(1.0)
        where = other(x)[0, 0].nonzero().double()
        assert where.mean(0).tolist() == [6.0, 6.0]
        assert len(where) == size * size


def test_a_decoder_is_searched_end_to_end():
    model = network(nn.ConvTranspose2d(4, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(4, 2, 4, 2, 1))
    loader = [(torch.randn(2, 3, 8, 8), None)] * 2
    for shapes in ("exact", "padded"):
        plan = search(
            model, loader, criterion=mean_square, config=recipe("bank", shapes=shapes, **QUICK)
        )
        assert list(plan) == ["1", "3"]
        assert apply_plan(model, plan)(loader[0][0]).shape == (2, 2, 24, 24)


def test_macs_are_those_that_pytorch_counts():
    model, x = network(nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2)), torch.randn(1, 3, 8, 8)
    searchable = SearchableCNN(model)
    cost = Macs(x)(searchable)
    for size in (1, 4, 5):
        cnn = apply_plan(model, {"1": size})
        with FlopCounterMode(display=False) as counter:
            cnn(x)
        assert cost([size]) == counter.get_total_flops() // 2
    assert searchable.plan(Budget(cost([5]), Macs(x)))["1"] == 5


class Skipping(nn.Module):
    """Asks for an output size, as decoders do that meet a skip connection."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
        self.up = nn.ConvTranspose2d(4, 4, 3, 2, 1)

    def forward(self, images):
        fine = self.stem(images)
        return fine + self.up(input=self.down(fine), output_size=fine.shape[2:])


@pytest.mark.parametrize("length", [8, 9])
def test_a_wanted_output_size_reaches_the_layer(length):
    x = torch.randn(2, 3, length, length)
    odd = range(1, 8, 2)
    searchable = SearchableCNN(Skipping(), recipe("bank"), allowed=odd, example=x).eval()
    cnn = searchable.warm_start({"down": 5, "up": 5})
    torch.testing.assert_close(cnn(x), searchable.forward_at([5, 5], x))
    assert Macs(x)(searchable)([3, 3]) > 0
    assert Latency(x, repetitions=1, warmups=0)(searchable)([3, 3]) > 0
