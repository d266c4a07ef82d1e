"""What the programs of GRUs share, one at a time: nonlinearities, constants and products."""

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton has no wheel for this platform")

import triton.language as tl  # noqa: E402
from effconv_kernels.triton import gates  # noqa: E402

sigmoid, tanh, constants, products = gates.sigmoid, gates.tanh, gates.constants, gates.products


@triton.jit
def _both(x, out, N: tl.constexpr):
    place = tl.arange(0, N)
    value = tl.load(x + place)
    tl.store(out + place, sigmoid(value))
    tl.store(out + N + place, tanh(value))


@triton.jit
def _constants(gates, bias, out, H: tl.constexpr, B: tl.constexpr):
    unit = tl.arange(0, B)
    r, z, in_n, bias_n = constants(gates, bias, unit, unit < H, H)
    tl.store(out + unit, r)
    tl.store(out + B + unit, z)
    tl.store(out + 2 * B + unit, in_n)
    tl.store(out + 3 * B + unit, bias_n)


@triton.jit
def _products(weight, state, out, known, H: tl.constexpr, B: tl.constexpr, BK: tl.constexpr):
    unit = tl.arange(0, B)
    r, z, n = products(weight, state, known, unit, H, BK)
    tl.store(out + unit, r)
    tl.store(out + B + unit, z)
    tl.store(out + 2 * B + unit, n)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_nonlinearities_are_as_exact_as_float32(triton_device):
    x = torch.cat([torch.logspace(-6, 1.9, 255), torch.zeros(1)])
    x = torch.cat([x, -x])
    out = torch.empty(2, 512, device=triton_device)
    _both[(1,)](x.to(triton_device), out, 512)
    found = out.double().cpu()
    torch.testing.assert_close(found[0], x.double().sigmoid(), rtol=1e-5, atol=1e-30)
    torch.testing.assert_close(found[1], x.double().tanh(), rtol=4e-7, atol=0)


def test_constants_are_sums_of_gates_and_biases_but_for_n(triton_device):
    H, B = 5, 8
    inputs, bias = drawn(3, H, seed=1), drawn(3, H, seed=2)
    out = torch.empty(4, B, device=triton_device)
    _constants[(1,)](inputs.to(triton_device), bias.to(triton_device), out, H, B)
    expected = torch.stack([inputs[0] + bias[0], inputs[1] + bias[1], inputs[2], bias[2]])
    torch.testing.assert_close(out[:, :H].cpu(), expected)
    assert (out[:, H:] == 0).all()


@pytest.mark.parametrize(("H", "BK"), [(5, 8), (8, 4), (9, 4)])
@pytest.mark.parametrize("known", [0, 3])
def test_products_read_no_more_of_a_state_than_is_known(H, BK, known, triton_device):
    B = 16
    weight, state = drawn(3, H, H, seed=1), drawn(H, seed=2)
    state[known:] = torch.nan
    out = torch.empty(3, B, device=triton_device)
    _products[(1,)](weight.to(triton_device), state.to(triton_device), out, known, H, B, BK)
    expected = weight[:, :, :known] @ state[:known]
    torch.testing.assert_close(out[:, :H].cpu(), expected)
