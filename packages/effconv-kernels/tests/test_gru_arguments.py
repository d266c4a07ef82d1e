"""The arguments of `gru_unroll` beyond a constant input, and the bank of GRUs."""

import importlib.util
from pathlib import Path

import pytest
import torch
from effconv_kernels import dispatch, gru_unroll
from effconv_kernels.eager import gru as eager_gru
from effconv_kernels.reference import gru_unroll_reference
from torch import nn

spec = importlib.util.spec_from_file_location(
    "gru_inputs", Path(__file__).with_name("gru_inputs.py")
)
gru_inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gru_inputs)
STEPS, drawn, tensors = gru_inputs.STEPS, gru_inputs.drawn, gru_inputs.tensors


@pytest.mark.parametrize("steps", [STEPS, [4, 4, 4], [1, 2, 9], [12, 12, 12]])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("cache", [0, 2**20])
def test_each_call_of_a_batch_equals_the_reference(steps, reverse, stepped, cache, monkeypatch):
    monkeypatch.setattr(eager_gru, "CACHE", cache)  # 0: each layer runs alone
    gates, weight, bias, start = tensors(sum(steps) if stepped else 3, 4, batch=(2,))
    ours, last = gru_unroll(
        gates, weight, bias, steps, initial_state=start, reverse=reverse, return_last=True
    )
    slow = torch.stack(
        [
            gru_unroll_reference(g, weight, bias, steps, s, reverse=reverse)
            for g, s in zip(gates, start)
        ]
    )
    torch.testing.assert_close(ours, slow)
    ends = [sum(steps[: i + 1]) - (count if reverse else 1) for i, count in enumerate(steps)]
    assert torch.equal(last, ours[:, ends])
    leaves, upstream = (gates, weight, bias, start), drawn(*ours.shape, seed=5).detach()
    found = torch.autograd.grad((ours, last), leaves, (upstream, torch.ones_like(last)))
    expected = torch.autograd.grad((slow, slow[:, ends]), leaves, (upstream, torch.ones_like(last)))
    torch.testing.assert_close(found, expected)
    single = gru_unroll(gates[1], weight, bias, steps, initial_state=start[1], reverse=reverse)
    torch.testing.assert_close(single, slow[1])


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradcheck_of_each_argument(batch, stepped, reverse):
    leaves = tensors(9 if stepped else 3, 2, batch=batch)
    assert torch.autograd.gradcheck(
        lambda g, w, b, s: gru_unroll(
            g, w, b, STEPS, initial_state=s, reverse=reverse, return_last=True
        ),
        leaves,
    )


def test_gradcheck_without_a_bias():
    gates, weight, _, start = tensors(9, 2)
    assert torch.autograd.gradcheck(
        lambda g, w, s: gru_unroll(g, w, None, STEPS, initial_state=s), (gates, weight, start)
    )


def test_the_two_directions_are_those_of_torch():
    torch.manual_seed(0)
    both = nn.GRU(3, 4, bidirectional=True, dtype=torch.float64)
    series, start = drawn(6, 3), drawn(2, 4, seed=1)
    expected, last = both(series, start)
    for direction, suffix in enumerate(("l0", "l0_reverse")):
        w, u, b, c = (
            getattr(both, f"{n}_{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        ours, mine = gru_unroll(
            series @ w.t() + b,
            u[None],
            c[None],
            [6],
            initial_state=start[direction, None],
            reverse=direction == 1,
            return_last=True,
        )
        torch.testing.assert_close(ours, expected[:, 4 * direction : 4 * direction + 4])
        torch.testing.assert_close(mine[0], last[direction])


def test_no_bias_is_a_bias_of_zero():
    gates, weight, bias, _ = tensors(9, 4)
    assert torch.equal(
        gru_unroll(gates, weight, None, STEPS), gru_unroll(gates, weight, 0 * bias, STEPS)
    )


@pytest.mark.parametrize("which", range(4))
def test_only_the_gradients_that_are_needed_are_computed(which, monkeypatch):
    asked = []
    backward = dispatch.eager.gru_unroll_backward

    def noted(*arguments):
        found = backward(*arguments)
        asked.append((arguments[-1], len(found)))
        return found

    monkeypatch.setattr(dispatch.eager, "gru_unroll_backward", noted)
    leaves = tensors(9, 3)
    gates, weight, bias, start = leaves
    expected = torch.autograd.grad(
        gru_unroll(gates, weight, bias, STEPS, initial_state=start).sum(), leaves
    )[which]
    gates, weight, bias, start = (
        leaf if place == which else leaf.detach() for place, leaf in enumerate(leaves)
    )
    ours = gru_unroll(gates, weight, bias, STEPS, initial_state=start).sum()
    assert torch.equal(torch.autograd.grad(ours, leaves[which])[0], expected)
    assert list(asked[-1][0]) == [place == which for place in range(4)]
    assert asked[-1][1] == 1


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize("stepped", [False, True])
def test_vmap_of_every_argument(batch, stepped):
    def call(gates, weight, bias, start):
        return gru_unroll(gates, weight, bias, STEPS, initial_state=start)

    one = tensors(9 if stepped else 3, 2, batch=batch)
    many = [torch.stack([tensor, 2 * tensor, -tensor], -1) for tensor in one]
    for chosen in ([0], [3], [0, 3], [1], [2, 3], [0, 1, 2, 3]):
        given = [many[i] if i in chosen else one[i] for i in range(4)]
        dims = tuple(-1 if i in chosen else None for i in range(4))
        ours = torch.vmap(call, in_dims=dims)(*given)
        each = [[many[i][..., k] if i in chosen else one[i] for i in range(4)] for k in range(3)]
        slow = torch.stack([call(*arguments) for arguments in each])
        torch.testing.assert_close(ours, slow)
        upstream = drawn(*ours.shape, seed=6).detach()
        torch.testing.assert_close(
            torch.autograd.grad(ours, given, upstream), torch.autograd.grad(slow, given, upstream)
        )


def test_a_batch_with_shared_weights_has_no_copies_of_them(monkeypatch):
    seen = []
    run = dispatch.eager.gru_unroll

    def noted(gates, weight, *rest):
        seen.append(weight)
        return run(gates, weight, *rest)

    monkeypatch.setattr(dispatch.eager, "gru_unroll", noted)
    gates, weight, bias, start = (tensor.detach() for tensor in tensors(9, 4))
    torch.vmap(lambda g: gru_unroll(g, weight, bias, STEPS))(torch.stack([gates, gates]))
    torch.vmap(lambda s: gru_unroll(gates, weight, bias, STEPS, initial_state=s))(
        torch.stack([start, start])
    )
    assert [tensor.data_ptr() for tensor in seen] == [weight.data_ptr()] * 2


def test_opcheck_with_all_arguments():
    for batch in ((), (2,)):
        gates, weight, bias, start = tensors(9, 3, batch=batch)
        arguments = gates, weight, bias, STEPS, start, True, "auto"
        torch.library.opcheck(torch.ops.effconv.gru_unroll.default, arguments)
        states = gru_unroll(gates, weight, bias, STEPS, initial_state=start).detach()
        leaves = (tensor.detach() for tensor in (gates, weight, bias))
        rest = STEPS, start.detach(), True, [False, True, False, True], "auto"
        torch.library.opcheck(
            torch.ops.effconv.gru_unroll_backward.default,
            (states, states, *leaves, *rest),
            test_utils=("test_schema", "test_faketensor"),
        )


@pytest.mark.slow
def test_a_fullgraph_compile_of_all_arguments():
    leaves = tensors(9, 3, batch=(2,))

    def call(gates, weight, bias, start):
        states, last = gru_unroll(
            gates, weight, bias, STEPS, initial_state=start, reverse=True, return_last=True
        )
        return states.square().sum() + last.sum()

    found, expected = torch.compile(call, fullgraph=True)(*leaves), call(*leaves)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves)
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"input_gates": torch.zeros(4, 9)}, r"\(4, 9\); it must be .* \(2, 9\) or \(5, 9\)"),
        ({"input_gates": torch.zeros(7, 4, 9)}, r"\(7, 4, 9\); it must be \(B, L, 3H\)"),
        ({"input_gates": torch.zeros(0, 2, 9)}, "batch of 0 calls"),
        ({"input_gates": torch.zeros(5, 8)}, r"\(5, 8\)"),
        ({"initial_state": torch.zeros(2, 4)}, r"initial_state has shape \(2, 4\)"),
        ({"initial_state": torch.zeros(6, 2, 3)}, r"initial_state has shape \(6, 2, 3\)"),
        ({"initial_state": torch.zeros(2, 3).double()}, "initial_state is torch.float64"),
        ({"backend": "cuda"}, "backend is 'cuda'; pass 'auto', 'triton' or 'torch'"),
    ],
)
def test_bad_arguments_name_the_value_and_the_rule(change, sentence):
    arguments = {
        "input_gates": torch.zeros(2, 9),
        "weight_hh": torch.zeros(2, 9, 3),
        "bias_hh": None,
        "steps": [2, 3],
    }
    with pytest.raises(ValueError, match=sentence):
        gru_unroll(**(arguments | change))


def test_the_backend_is_the_arguments_or_else_the_environments(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    given = torch.zeros(1, 9), torch.zeros(1, 9, 3), None, [2]
    with pytest.raises(ValueError, match="backend is 'triton'"):
        gru_unroll(*given, backend="triton")
    monkeypatch.setenv("EFFCONV_KERNELS_BACKEND", "triton")
    with pytest.raises(ValueError, match="backend is 'triton'"):
        gru_unroll(*given)
    assert gru_unroll(*given, backend="torch").shape == (2, 3)
    monkeypatch.setenv("EFFCONV_KERNELS_BACKEND", "jax")
    with pytest.raises(ValueError, match="EFFCONV_KERNELS_BACKEND='jax'"):
        gru_unroll(*given)
