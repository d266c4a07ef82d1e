"""`gru_unroll` in batched PyTorch, called without the operator, against the plain form."""

import pytest
import torch
from effconv_kernels.eager import gru
from effconv_kernels.reference import gru_unroll_reference


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def arguments(steps, H=3, stepped=False):
    layers = len(steps)
    return [
        drawn(sum(steps) if stepped else layers, 3 * H, seed=1),
        drawn(layers, 3 * H, H, seed=2),
        drawn(layers, 3 * H, seed=3),
        drawn(layers, H, seed=4),
    ]


@pytest.mark.parametrize("steps", [[1], [2, 5, 1], [3, 3], [5, 3, 1]])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("cache", [1, 2**20])
def test_states_and_gradients_are_those_of_the_plain_form(
    steps, reverse, stepped, cache, monkeypatch
):
    if stepped and len(steps) == sum(steps):
        pytest.skip("one row a layer is a constant input")
    monkeypatch.setattr(gru, "CACHE", cache)  # layers one by one, or all together
    gates, weight, bias, start = arguments(steps, stepped=stepped)
    leaves = [t.clone().requires_grad_() for t in (gates, weight, bias, start)]
    expected = gru_unroll_reference(*leaves[:3], steps, leaves[3], reverse=reverse)
    states = gru.gru_unroll(gates, weight, bias, steps, start, reverse)
    torch.testing.assert_close(states, expected.detach())
    grad = drawn(*states.shape, seed=5)
    found = gru.gru_unroll_backward(
        grad, states, gates, weight, bias, steps, start, reverse, [True] * 4
    )
    for mine, theirs in zip(found, torch.autograd.grad(expected, leaves, grad), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("needed", range(4))
def test_only_what_is_needed_is_returned(needed):
    gates, weight, bias, start = arguments([2, 3])
    states = gru.gru_unroll(gates, weight, bias, [2, 3], start, False)
    grad, call = torch.ones_like(states), (gates, weight, bias, [2, 3], start, False)
    needs = [place == needed for place in range(4)]
    (one,) = gru.gru_unroll_backward(grad, states, *call, needs)
    every = gru.gru_unroll_backward(grad, states, *call, [True] * 4)
    torch.testing.assert_close(one, every[needed])


def test_short_tensors_are_summed_in_float32():
    arguments_ = [tensor.bfloat16() for tensor in arguments([4, 2])]
    gates, weight, bias, start = arguments_
    states = gru.gru_unroll(gates, weight, bias, [4, 2], start, False)
    wide = gru.gru_unroll(*(t.float() for t in arguments_[:3]), [4, 2], start.float(), False)
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states, wide.bfloat16())
