"""FlexConv against a slow form that goes tap by tap, in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from effconv_models import FlexConv, FlexConvConfig, anti_aliasing
from effconv_models.flexconv.fft_conv import fft_conv
from effconv_models.flexconv.magnet import MAGNet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

DIRECT = FlexConvConfig(fft_taps=None)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def magnet_by_hand(net: MAGNet, point: list[float]) -> list[float]:
    """Give the network's values at one point, with numbers alone."""
    gamma, mu, frequency, phase, weight, bias, out_weight, out_bias = (
        getattr(net, name).tolist()
        for name in (
            *("gamma", "mu", "frequency", "phase"),
            *("hidden_weight", "hidden_bias", "out_weight", "out_bias"),
        )
    )

    def gabor(layer: int, channel: int) -> float:
        window = sum(
            (g * (x - m)) ** 2
            for g, x, m in zip(gamma[layer][channel], point, mu[layer][channel], strict=True)
        )
        angle = sum(w * x for w, x in zip(frequency[layer][channel], point, strict=True))
        return math.exp(-window / 2) * math.sin(angle + phase[layer][channel])

    hidden = [gabor(0, channel) for channel in range(len(phase[0]))]
    for layer in range(len(bias)):
        hidden = [
            (sum(w * h for w, h in zip(weight[layer][c], hidden, strict=True)) + bias[layer][c])
            * gabor(layer + 1, c)
            for c in range(len(hidden))
        ]
    return [
        sum(w * h for w, h in zip(row, hidden, strict=True)) + b
        for row, b in zip(out_weight, out_bias, strict=True)
    ]


def kernel_by_hand(layer: FlexConv) -> torch.Tensor:
    """Give the masked kernel on the whole grid, where cropped taps are zero.

    Those stay that are above the threshold, at the origin, or between.
    """
    axes = []  # for each axis (x, mask) by place
    for taps, (mean, width) in zip(layer.grid, layer.mask.tolist(), strict=True):
        points = [2 * i / (taps - 1) - 1 for i in range(taps)]
        masks = [math.exp(-(((x - mean) / width) ** 2) / 2) for x in points]
        origin = 1.0 if layer.causal else 0.0
        reach = abs(width) * math.sqrt(2 * math.log(1 / layer.config.threshold))
        low, high = min(origin, mean - reach), max(origin, mean + reach)
        pairs = enumerate(zip(points, masks, strict=True))
        axes.append({i: pair for i, pair in pairs if low - 1e-9 <= pair[0] <= high + 1e-9})
    c_in = layer.c_in // layer.groups
    kernel = torch.zeros(layer.c_out, c_in, *layer.grid, dtype=torch.float64)
    for place in itertools.product(*axes):
        point, masks = zip(*(axis[i] for axis, i in zip(axes, place, strict=True)), strict=True)
        for number, value in enumerate(magnet_by_hand(layer.network, list(point))):
            kernel[(number // c_in, number % c_in, *place)] = value * math.prod(masks)
    return kernel


def convolve_by_hand(images: torch.Tensor, kernel: torch.Tensor, layer: FlexConv) -> torch.Tensor:
    """Slide the whole grid over images; what lies outside of them is zero."""
    lengths = images.shape[2:]
    counts = [
        math.ceil((length + before + after) / step)
        for length, (before, after), step in zip(lengths, layer.margins, layer.stride, strict=True)
    ]
    origins = [taps - 1 if layer.causal else taps // 2 for taps in layer.grid]
    outputs = torch.zeros(len(images), layer.c_out, *counts, dtype=torch.float64)
    c_in, per_group = layer.c_in // layer.groups, layer.c_out // layer.groups
    for out in itertools.product(*map(range, counts)):
        for tap in itertools.product(*map(range, layer.grid)):
            at = tuple(
                o * step - before + t - origin
                for o, step, (before, _), t, origin in zip(
                    out, layer.stride, layer.margins, tap, origins, strict=True
                )
            )
            if all(0 <= a < length for a, length in zip(at, lengths, strict=True)):
                for c_out in range(layer.c_out):
                    first = c_out // per_group * c_in
                    seen = images[(slice(None), slice(first, first + c_in), *at)]
                    outputs[(slice(None), c_out, *out)] += seen @ kernel[(c_out, slice(None), *tap)]
    return outputs + layer.bias.detach().view(-1, *[1] * len(lengths))


def moved(layer: FlexConv, mask: list[list[float]]) -> FlexConv:
    """Give the layer in float64 with another mask and a bias that is not zero."""
    layer = layer.double()
    with torch.no_grad():
        layer.mask.copy_(torch.tensor(mask, dtype=torch.float64))
        layer.bias.copy_(random(layer.c_out, seed=9))
    return layer


CASES = {
    "square": ({}, (9, 8), [[0.0, 0.2], [0.0, 0.2]]),
    "off centre": ({}, (7, 7), [[0.3, 0.2], [-0.2, 0.35]]),
    "whole grid": ({}, (5, 6), [[0.1, 9.0], [0.0, 9.0]]),
    "beside the grid": ({}, (7, 7), [[1.4, 0.1], [-1.2, 0.3]]),
    "stride": ({"stride": 2}, (8, 7), [[0.0, 0.3], [0.1, 0.3]]),
    "oblong": ({"grid": (5, 9), "stride": (1, 3)}, (6, 9), [[0.0, 0.5], [0.0, 0.2]]),
    "groups": ({"groups": 2}, (6, 6), [[0.0, 0.3], [0.0, 0.3]]),
    "margins": ({"margins": ((-1, 0), (2, 1))}, (6, 6), [[0.0, 0.3], [0.2, 0.3]]),
    "line": ({"axes": 1}, (12,), [[0.1, 0.3]]),
    "causal": ({"axes": 1, "causal": True, "grid": 11}, (14,), [[0.9, 0.25]]),
    "causal, past only": ({"axes": 1, "causal": True, "grid": 11}, (14,), [[0.2, 0.1]]),
}


@pytest.mark.parametrize("fft_taps", [None, 1], ids=["direct", "fft"])
@pytest.mark.parametrize("case", CASES)
def test_a_layer_is_what_its_equations_say(case, fft_taps):
    options, lengths, mask = CASES[case]
    config = FlexConvConfig(hidden=3, layers=2, fft_taps=fft_taps)
    options = {"grid": 7, "config": config, "generator": seeded(3), **options}
    layer = moved(FlexConv(2, 4, **options), mask)
    images = random(2, 2, *lengths, seed=1)
    expected = convolve_by_hand(images, kernel_by_hand(layer), layer)
    torch.testing.assert_close(layer(images), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.to_conv()(images), expected, rtol=1e-10, atol=1e-10)


def test_the_sampled_kernel_is_the_window_of_the_grid():
    layer = moved(FlexConv(2, 3, (9, 7), generator=seeded()), [[0.3, 0.2], [-0.4, 0.3]])
    (top, bottom), (left, right) = layer.window
    whole = kernel_by_hand(layer)
    kept = whole[:, :, top : bottom + 1, left : right + 1]
    torch.testing.assert_close(layer.sample(), kept, rtol=1e-10, atol=1e-12)
    assert whole.count_nonzero() == kept.count_nonzero() == kept.numel()
    assert layer.effective_size == kept.shape[2:]


def test_a_mask_that_is_not_finite_is_refused():
    layer = FlexConv(1, 1, 9)
    with torch.no_grad():
        layer.mask[0, 1] = math.nan
    with pytest.raises(FloatingPointError, match="width of the mask are .*; lower the learning"):
        layer(torch.zeros(1, 1, 8, 8))


def test_a_mask_far_from_the_middle_sees_nothing_in_small_images():
    layer = moved(FlexConv(1, 1, 33, axes=1, generator=seeded()), [[0.9, 0.01]])
    sequence = random(1, 1, 8)
    expected = convolve_by_hand(sequence, kernel_by_hand(layer), layer)
    torch.testing.assert_close(layer(sequence), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.to_conv()(sequence), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("fft_taps", [None, 1], ids=["direct", "fft"])
def test_gradients_are_those_of_finite_differences(axes, fft_taps):
    config = FlexConvConfig(hidden=2, layers=2, fft_taps=fft_taps)
    layer = FlexConv(2, 2, 5, axes=axes, stride=2, config=config, generator=seeded(1))
    layer = moved(layer, [[0.1, 0.4]] * axes)
    names, values = zip(*layer.named_parameters(), strict=True)
    images = random(2, 2, *[5] * axes, seed=2)

    def function(images, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), images)

    inputs = [images, *(value.detach().clone() for value in values)]
    assert torch.autograd.gradcheck(function, [t.requires_grad_() for t in inputs])


def test_the_mask_alone_can_be_learned():
    """A kernel whose true width is larger than the mask's start: gradient descent widens it."""
    truth = FlexConv(1, 1, 9, config=DIRECT, generator=seeded(4))
    learner = FlexConv(1, 1, 9, config=DIRECT, generator=seeded(4))
    with torch.no_grad():
        truth.mask[:, 1] = 0.4
        learner.mask[:, 1] = 0.3
    images = torch.randn(8, 1, 16, 16, generator=seeded(5))
    optimizer = torch.optim.Adam([learner.mask], 1e-2)
    for _ in range(200):
        loss = F.mse_loss(learner(images), truth(images).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(learner.mask, truth.mask, rtol=0, atol=0.01)
    assert learner.effective_size == truth.effective_size


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.01, 1e-6])
def test_cropping_is_off_by_no_more_than_the_threshold_allows(threshold):
    """A cropped tap has a mask below the threshold, so an output is off by at most the threshold
    times the sum of |MAGNet| over cropped taps and input channels, times the largest |input|."""
    mask = [[0.2, 0.25], [-0.1, 0.3]]
    layers = {
        t: moved(FlexConv(3, 4, 13, config=FlexConvConfig(threshold=t), generator=seeded(2)), mask)
        for t in (0.0, threshold)
    }
    whole, cropped = layers[0.0], layers[threshold]
    assert whole.effective_size == (13, 13)
    images = random(2, 3, 10, 10, seed=3)
    error = (cropped(images) - whole(images)).abs().amax((0, 2, 3))

    axis = torch.linspace(-1, 1, 13, dtype=torch.float64)
    values = whole.network(torch.cartesian_prod(axis, axis)).T.reshape(4, 3, 13, 13).abs()
    (top, bottom), (left, right) = cropped.window
    values[:, :, top : bottom + 1, left : right + 1] = 0
    bound = threshold * values.sum((1, 2, 3)) * images.abs().max()
    assert (error <= bound + 1e-12).all()
    if cropped.effective_size != (13, 13):
        assert (error > 0).all()
    # The threshold makes the difference small against what the layer gives.
    assert error.max() <= 40 * threshold * whole(images).abs().max()


@settings(deadline=None, max_examples=100)
@given(
    half=st.integers(1, 20),
    mean=st.floats(-1.5, 1.5),
    width=st.floats(-0.8, 0.8).filter(lambda w: abs(w) > 1e-3),
    threshold=st.floats(0.001, 0.9),
)
def test_the_window_holds_the_origin_and_every_tap_above_the_threshold_and_no_more(
    half, mean, width, threshold
):
    taps = 2 * half + 1
    config = FlexConvConfig(hidden=1, layers=1, threshold=threshold)
    layer = FlexConv(1, 1, taps, axes=1, config=config).double()
    with torch.no_grad():
        layer.mask.copy_(torch.tensor([[mean, width]]))
    mean, width = layer.mask[0].tolist()
    ((first, last),) = layer.window
    values = [math.exp(-(((i / half - 1 - mean) / width) ** 2) / 2) for i in range(taps)]
    assert first <= half <= last
    for i, value in enumerate(values):
        # A tap on the very threshold may fall on either side of it.
        if value > threshold + 1e-9:
            assert first <= i <= last
    # Neither end is farther out than it must be, where any tap is above.
    for end in (first, last):
        assert end == half or values[end] >= threshold - 1e-9 or max(values) < threshold


def test_the_first_kernel_at_32_pixels_is_5x5():
    """Reach 0.075 sqrt(2 ln 10) = 0.161 of a grid with a tap every 0.0625."""
    layer = FlexConv(3, 8, 33)
    assert layer.window == ((14, 18), (14, 18))
    assert layer.mask.tolist() == [[0.0, pytest.approx(0.075)]] * 2
    assert FlexConv(1, 1, 33, axes=1, causal=True).window == ((30, 32),)


def test_a_causal_layer_does_not_see_what_comes_later():
    layer = FlexConv(2, 3, 9, axes=1, causal=True, generator=seeded())
    with torch.no_grad():
        layer.mask[:, 1] = 2.0
    sequence = torch.randn(1, 2, 20, generator=seeded(1), requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(sequence)[0, :, 7].sum(), sequence)
    assert gradient[0, :, 8:].abs().max() == 0
    assert gradient[0, :, :8].abs().min() > 0


@pytest.mark.parametrize("fft_taps", [None, 1])
def test_under_autocast_the_kernel_stays_exact(fft_taps):
    layer = FlexConv(2, 3, 17, config=FlexConvConfig(fft_taps=fft_taps), generator=seeded())
    images = torch.randn(2, 2, 16, 16, generator=seeded(1))
    with torch.autocast("cpu", torch.bfloat16):
        kernel, outputs = layer.sample(), layer(images)
    assert torch.equal(kernel, layer.sample())
    # Rounding of images and kernel to 8 bits.
    assert (outputs - layer(images)).norm() <= 2**-7 * layer(images).norm()


def test_a_causal_kernel_starts_as_large_as_a_centred_one():
    norms = [
        FlexConv(32, 32, 65, axes=1, causal=causal, generator=seeded()).sample().square().mean()
        for causal in (False, True)
    ]
    assert 0.2 < norms[1] / norms[0] < 5


@pytest.mark.parametrize(("fft_taps", "used"), [(None, 0), (25, 1), (26, 0)])
def test_the_switch_counts_taps(fft_taps, used, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "effconv_models.flexconv.conv.fft_conv",
        lambda *a, **k: calls.append(1) or fft_conv(*a, **k),
    )
    FlexConv(1, 1, 33, config=FlexConvConfig(fft_taps=fft_taps))(torch.zeros(1, 1, 32, 32))
    assert len(calls) == used


def test_initial_values_are_those_of_the_authors_code():
    net = MAGNet(2, 500, hidden=400, spread=0.125, generator=seeded())
    for i in range(4):
        # Gamma(6 / i, 1) has mean and variance 6 / i.
        assert net.gamma[i].mean().item() == pytest.approx(6 / (i + 1), rel=0.15)
        assert net.gamma[i].var().item() == pytest.approx(6 / (i + 1), rel=0.25)
    ratio = (net.frequency / net.gamma).abs()
    assert ratio.max().item() == pytest.approx(25.6 / 2 / 2**0.5, rel=0.01)
    assert net.mu.abs().max().item() == pytest.approx(0.125, rel=0.01)
    assert net.phase.abs().max().item() == pytest.approx(math.pi, rel=0.01)
    for values in (net.hidden_weight, net.hidden_bias, net.out_weight, net.out_bias):
        assert values.abs().max().item() == pytest.approx(400**-0.5, rel=0.02)


def test_initial_values_come_from_the_generator_alone():
    before = torch.get_rng_state()
    one, two = (FlexConv(2, 3, 9, generator=seeded(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_anti_aliasing_by_hand():
    layer = moved(FlexConv(1, 1, 9, config=FlexConvConfig(hidden=2, layers=1)), [[0, 0.5], [0, 4]])
    with torch.no_grad():
        layer.network.frequency.copy_(torch.tensor([[[9.0, 1], [0, -2]], [[1, 1], [1, 1]]]))
        layer.network.gamma.copy_(torch.tensor([[[0.5, 1], [1, 3]], [[1, 1], [0, 0]]]))
    # In cycles times 2 pi, with one standard deviation; a grid of 9 holds 2 cycles, each of the two
    # filters one. First filter: 9.5 and 5 by axis; the mask adds 1 and 1/8 to each; second: 2, 2.
    first = max((9.5 + 1) / (2 * math.pi) - 1, (5 + 1 / 8) / (2 * math.pi) - 1)
    penalty = anti_aliasing(nn.Sequential(layer), standard_deviations=1.0)
    assert penalty.item() == pytest.approx(first**2)
    penalty.backward()
    assert layer.network.frequency.grad[0, 0, 0] > 0
    assert layer.network.frequency.grad[1].abs().max() == 0


def test_anti_aliasing_pulls_frequencies_below_the_limit():
    layer = FlexConv(2, 2, 17, config=FlexConvConfig(hidden=4), generator=seeded())
    optimizer = torch.optim.Adam(layer.parameters(), 0.1)
    start = anti_aliasing(layer).item()
    for _ in range(500):
        optimizer.zero_grad()
        anti_aliasing(layer).backward()
        optimizer.step()
    assert anti_aliasing(layer).item() < start / 10
