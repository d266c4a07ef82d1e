"""N-Jet layers against Gaussian derivatives that are taken from numpy's polynomials."""

import math

import numpy as np
import pytest
import torch
from effconv_models import NJetConv, create_model, effective_sizes, with_njet
from effconv_models.njet import gaussian_derivatives
from torch import nn


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def derivative(order: int, sigma: float, reach: int) -> np.ndarray:
    """Differentiate p(x) exp(-x^2 / (2 sigma^2)) by the product rule, `order` times."""
    x = np.arange(-reach, reach + 1.0)
    gauss = np.exp(-(x**2) / (2 * sigma**2))
    factor = np.polynomial.Polynomial([1 / gauss.sum()])
    for _ in range(order):
        factor = factor.deriv() - factor * np.polynomial.Polynomial([0, 1 / sigma**2])
    return sigma**order * factor(x) * gauss


def kernel_by_hand(layer: NJetConv) -> np.ndarray:
    weight, scale = layer.weight.tolist(), layer.scale.detach().exp2().numpy()
    c_out, c_in = layer.weight.shape[:2]
    reach = math.ceil(2 * scale.max() + 0.5)
    kernel = np.zeros((c_out, c_in, 2 * reach + 1, 2 * reach + 1))
    for o in range(c_out):
        for i in range(c_in):
            sigma = float(np.broadcast_to(scale, (c_out, c_in))[o, i])
            k = 0
            for down in range(layer.order + 1):
                for right in range(layer.order + 1 - down):
                    kernel[o, i] += weight[o][i][k] * np.outer(
                        derivative(down, sigma, reach), derivative(right, sigma, reach)
                    )
                    k += 1
            assert k == len(weight[o][i])
    return kernel


def spread(layer: NJetConv) -> NJetConv:
    """Set scales that are not all alike where there are several."""
    layer = layer.double()
    with torch.no_grad():
        layer.scale += torch.linspace(-0.7, 0.4, layer.scale.numel()).view_as(layer.scale)
    return layer


@pytest.mark.parametrize("scales", ["layer", "filter"])
@pytest.mark.parametrize("order", [1, 3, 4])
@pytest.mark.parametrize("groups", [1, 2])
def test_kernels_are_those_of_numpys_derivatives(scales, order, groups):
    options = {"order": order, "sigma": 1.3, "scales": scales, "groups": groups}
    layer = spread(NJetConv(4, 6, **options, generator=seeded()))
    expected = torch.from_numpy(kernel_by_hand(layer))
    assert layer.effective_size == tuple(expected.shape[2:])
    torch.testing.assert_close(layer.sample(), expected, rtol=1e-9, atol=1e-12)
    images = torch.randn(2, 4, 9, 8, generator=seeded(1), dtype=torch.float64)
    pad = expected.shape[-1] // 2
    slow = torch.nn.functional.conv2d(images, expected, padding=pad, groups=groups)
    torch.testing.assert_close(layer(images), slow, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(layer.to_conv()(images), slow, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("scales", ["layer", "filter"])
def test_gradients_are_those_of_differences(scales):
    layer = spread(NJetConv(2, 3, order=2, scales=scales, generator=seeded()))
    images = torch.randn(1, 2, 6, 5, generator=seeded(1), dtype=torch.float64)

    def outputs(scale, weight):
        return torch.func.functional_call(layer, {"scale": scale, "weight": weight}, images)

    values = [p.detach().requires_grad_() for p in (layer.scale, layer.weight)]
    assert torch.autograd.gradcheck(outputs, values)


def test_derivatives_of_smooth_functions_are_found():
    """The layer of weight 1 on d/dx differentiates a ramp, and one on d2/dy2 a parabola."""
    lines = gaussian_derivatives(torch.tensor(2.0, dtype=torch.float64), 2, 20)
    x = torch.arange(-20, 21, dtype=torch.float64)
    assert lines[0].sum().item() == pytest.approx(1)
    # Correlated, not convolved: the sign of odd orders turns.
    assert (lines[1] @ (3 * x)).item() == pytest.approx(-3 * 2, rel=1e-6)
    assert (lines[2] @ (x**2)).item() == pytest.approx(2 * 2**2, rel=1e-6)


@pytest.mark.parametrize("scales", ["layer", "filter"])
def test_sizes_follow_the_scale(scales):
    layer = NJetConv(2, 2, sigma=0.5, scales=scales, generator=seeded())
    assert layer.effective_size == (5, 5)
    with torch.no_grad():
        layer.scale.view(-1)[-1] = 2.0
    assert layer.effective_size == (19, 19)
    assert layer(torch.zeros(1, 2, 7, 7)).shape == (1, 2, 7, 7)
    assert effective_sizes(nn.Sequential(layer)) == {"0": 19}
    with torch.no_grad():
        layer.scale.view(-1)[0] = math.nan
    with pytest.raises(FloatingPointError):
        layer(torch.zeros(1, 2, 7, 7))


def test_strides_give_the_sizes_that_same_conv_gives():
    for side in (7, 8):
        layer = NJetConv(2, 4, stride=2, generator=seeded())
        images = torch.randn(1, 2, side, side, generator=seeded(1))
        assert layer(images).shape[-1] == -(-side // 2)
        torch.testing.assert_close(layer.to_conv()(images), layer(images), rtol=1e-4, atol=1e-5)


def test_initial_kernels_have_the_norm_of_he():
    layer = NJetConv(64, 32, generator=seeded())
    assert layer.sample().square().sum((2, 3)).mean().item() == pytest.approx(2 / 32, rel=0.1)


def test_the_network_of_the_table_has_the_printed_number_of_parameters():
    model = create_model("njet_resnet32", generator=seeded())
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(0.52, abs=0.005)
    assert set(effective_sizes(model).values()) == {7}
    model.eval()
    again = create_model("njet_resnet32", num_classes=3, in_channels=1)
    assert again(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


def test_a_model_is_copied_and_others_are_refused():
    model = create_model("cifar_resnet20", generator=seeded())
    changed = with_njet(model, order=2, scales="filter", generator=seeded(1))
    assert isinstance(model.conv1, nn.Conv2d)
    assert changed.layer2[0].conv1.stride == 2
    assert changed.layer1[0].conv1.scale.shape == (16, 16)
    images = torch.randn(2, 3, 8, 8, generator=seeded(2))
    changed(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in changed.parameters())
    for odd in (
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(3, 4, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(3, 4, (3, 5), padding=(1, 2), bias=False),
        nn.Conv2d(3, 4, 1),
    ):
        with pytest.raises(ValueError, match="convolution|layer '0'"):
            with_njet(nn.Sequential(odd))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": 0}, "order"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"sigma": math.inf}, "sigma is inf"),
        ({"scales": "pixel"}, "pixel"),
        ({"groups": 2}, "groups is 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        NJetConv(3, 4, **options)
