import pytest
import torch
from effconv_kernels import gru_unroll
from effconv_kernels.reference import gru_unroll_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad


def inputs(layers, H, *, seed=0, dtype=torch.float64, requires_grad=True):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(layers, 3 * H), (layers, 3 * H, H), (layers, 3 * H)]
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_(requires_grad)
        for shape in shapes
    ]


def test_one_step_by_hand():
    # h_0 = 0, so r = sigma(0.4 + 0.1), z = sigma(-0.2 + 0.3), n = tanh(0.5 + r * 0.6),
    # h_1 = (1 - z) n with r = 0.62245933, z = 0.52497919.
    gates = torch.tensor([[0.4, -0.2, 0.5]], dtype=torch.float64)
    weight = torch.tensor([[[9.0], [9.0], [9.0]]], dtype=torch.float64)
    bias = torch.tensor([[0.1, 0.3, 0.6]], dtype=torch.float64)
    assert gru_unroll(gates, weight, bias, [1]).item() == pytest.approx(0.334004, abs=1e-6)


def test_equals_torch_gru_on_a_constant_input():
    H, inputs_per_step, steps = 5, 3, [7, 1, 4]
    torch_grus = [torch.nn.GRU(inputs_per_step, H).double() for _ in steps]
    generator = torch.Generator().manual_seed(1)
    for gru in torch_grus:
        for parameter in gru.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    z = torch.randn(len(steps), inputs_per_step, generator=generator, dtype=torch.float64)
    expected = torch.cat(
        [
            gru(z[i].expand(t, inputs_per_step))[0]
            for i, (gru, t) in enumerate(zip(torch_grus, steps))
        ]
    )
    ours = gru_unroll(
        torch.stack([g.weight_ih_l0 @ z[i] + g.bias_ih_l0 for i, g in enumerate(torch_grus)]),
        torch.stack([g.weight_hh_l0 for g in torch_grus]),
        torch.stack([g.bias_hh_l0 for g in torch_grus]),
        steps,
    )
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    leaves = [g.weight_hh_l0 for g in torch_grus] + [g.weight_ih_l0 for g in torch_grus]
    for mine, theirs in zip(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
    ):
        torch.testing.assert_close(mine, theirs)


@settings(deadline=None, max_examples=30)
@given(
    steps=st.lists(st.sampled_from([1, 2, 4, 9, 49]), min_size=1, max_size=5),
    H=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_output_and_every_gradient_equal_the_reference(steps, H, seed):
    tensors = inputs(len(steps), H, seed=seed)
    ours = gru_unroll(*tensors, steps)
    reference = gru_unroll_reference(*tensors, steps)
    torch.testing.assert_close(ours, reference)
    upstream = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator())
    names = ["input_gates", "weight_hh", "bias_hh"]
    for name, mine, theirs in zip(
        names,
        torch.autograd.grad(ours, tensors, upstream),
        torch.autograd.grad(reference, tensors, upstream),
    ):
        torch.testing.assert_close(mine, theirs, msg=lambda m, name=name: f"{name}: {m}")


def test_gradcheck():
    torch.autograd.gradcheck(lambda *t: gru_unroll(*t, [4, 1, 3]), inputs(3, 2))


def test_float32_is_as_close_as_its_rounding_allows():
    steps = [49, 25, 9, 1]
    exact = inputs(4, 64, requires_grad=False)
    exact[1] /= 8  # recurrent weights of the size that an initialised GRU has
    ours = gru_unroll(*(t.float() for t in exact), steps)
    # The state is contractive here; 49 steps of sums over 64 products stay within a few ulps.
    torch.testing.assert_close(
        ours.double(), gru_unroll_reference(*exact, steps), atol=2e-6, rtol=0
    )


def test_non_contiguous_input_and_a_tensor_of_steps():
    gates, weight, bias = inputs(3, 4, requires_grad=False)
    expected = gru_unroll(gates, weight, bias, [2, 5, 1])
    transposed = weight.transpose(1, 2).contiguous().transpose(1, 2)
    assert not transposed.is_contiguous()
    torch.testing.assert_close(
        gru_unroll(gates.t().contiguous().t(), transposed, bias, torch.tensor([2, 5, 1])), expected
    )


def test_opcheck():
    torch.library.opcheck(
        torch.ops.effconv.gru_unroll.default, (*inputs(2, 3), [4, 2], None, False, "auto")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",  # that of every day takes long, and has a case in `test_assemble.py`
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)],
)
def test_runs_inside_a_fullgraph_compile(backend):
    tensors = inputs(2, 3)
    compiled = torch.compile(
        lambda *t: gru_unroll(*t[:3], t[3:]).square().sum(), fullgraph=True, backend=backend
    )
    # Other counts than those of the first call are traced as unknown integers.
    for steps in ([4, 2], [9, 4], [2, 16], [25, 9]):
        eager = gru_unroll(*tensors, steps).square().sum()
        found = compiled(*tensors, *steps)
        torch.testing.assert_close(found, eager)
        torch.testing.assert_close(
            torch.autograd.grad(found, tensors), torch.autograd.grad(eager, tensors)
        )


def test_vmap_over_any_argument_also_of_the_backward_pass():
    gates, weight, bias = inputs(2, 3)
    many = torch.randn(5, 2, 9, dtype=torch.float64, requires_grad=True)
    steps = [4, 1]
    ours = torch.vmap(lambda x: gru_unroll(x, weight, bias, steps))(many)
    each = torch.stack([gru_unroll(x, weight, bias, steps) for x in many])
    assert torch.equal(ours, each)
    leaves, upstream = (many, weight, bias), torch.randn_like(each)
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(each, leaves, upstream)
    )
    last = torch.stack([weight, 2 * weight], dim=-1)
    found = torch.vmap(lambda w: gru_unroll(gates, w, bias, steps), in_dims=-1)(last)
    assert torch.equal(found[1], gru_unroll(gates, 2 * weight, bias, steps))
    states = gru_unroll(gates, weight, bias, steps)
    upstream = torch.randn(7, *states.shape, dtype=torch.float64)
    batched = torch.autograd.grad(
        states, (gates, weight, bias), upstream, is_grads_batched=True, retain_graph=True
    )
    for index, one in enumerate(upstream):
        single = torch.autograd.grad(states, (gates, weight, bias), one, retain_graph=True)
        torch.testing.assert_close([grad[index] for grad in batched], list(single))


def test_functional_call_with_other_parameters():
    class Bank(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(inputs(2, 3)[1].detach())

        def forward(self, gates, bias):
            return gru_unroll(gates, self.weight, bias, [4, 1])

    gates, weight, bias = inputs(2, 3)
    changed = (2 * weight).detach().requires_grad_()
    ours = torch.func.functional_call(Bank(), {"weight": changed}, (gates, bias))
    assert torch.equal(ours, gru_unroll(gates, changed, bias, [4, 1]))
    assert torch.autograd.grad(ours.sum(), changed)[0].abs().max() > 0


def test_a_second_derivative_is_refused():
    tensors = inputs(2, 3)
    (grad,) = torch.autograd.grad(
        gru_unroll(*tensors, [4, 2]).square().sum(), tensors[:1], create_graph=True
    )
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        torch.autograd.grad(grad.sum(), tensors)


def test_tables_made_in_inference_mode_serve_training():
    tensors, steps = inputs(2, 3), [6, 13]
    with torch.inference_mode():
        gru_unroll(*tensors, steps)
    ours = torch.autograd.grad(gru_unroll(*tensors, steps).sum(), tensors)
    reference = torch.autograd.grad(gru_unroll_reference(*tensors, steps).sum(), tensors)
    torch.testing.assert_close(ours, reference)


def test_the_literal_form_of_the_paper():
    # 64 channels in and out: one hidden unit a kernel value. A timestep is one product.
    H, steps = 4096, [4]
    gates, weight, bias = inputs(1, H, dtype=torch.float32, requires_grad=False)
    weight /= H**0.5
    leaves = [tensor.requires_grad_() for tensor in (gates, weight, bias)]
    ours, reference = gru_unroll(*leaves, steps), gru_unroll_reference(*leaves, steps)
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)
    upstream = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    for mine, theirs in zip(
        torch.autograd.grad(ours, leaves, upstream),
        torch.autograd.grad(reference, leaves, upstream),
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5 * theirs.abs().max().item(), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_meta_tensors_give_shapes(dtype):
    tensors = [t.to("meta", dtype) for t in inputs(2, 3, requires_grad=False)]
    assert gru_unroll(*tensors, [4, 2]).shape == (6, 3)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"steps": [3]}, ValueError, "steps has length 1 for 2 layers"),
        ({"steps": [3, 0]}, ValueError, r"steps\[1\] is 0; it must be at least 1"),
        ({"steps": [3, 70_000]}, ValueError, r"steps\[1\] is 70000; it may be at most 65,536"),
        ({"steps": 3}, ValueError, "steps is 3; it must have one integer for each of the 2 layer"),
        ({"steps": torch.tensor(3)}, ValueError, r"tensor of shape \(\); it must have one integer"),
        ({"steps": torch.tensor([3.0, 1.0])}, ValueError, "steps is a torch.float32 tensor"),
        ({"steps": torch.tensor([True, True])}, ValueError, "steps is a torch.bool tensor"),
        ({"steps": None}, TypeError, "steps is a NoneType; pass a sequence of integers"),
        ({"steps": [3, -4]}, ValueError, r"steps\[1\] is -4"),
        ({"steps": [3, 1.5]}, TypeError, r"steps\[1\] is 1.5, a float"),
        (
            {"weight_hh": torch.zeros(2, 9, 4)},
            ValueError,
            r"weight_hh has shape \(2, 9, 4\); it must be \(L, 3H, H\)",
        ),
        ({"weight_hh": torch.zeros(9, 3)}, ValueError, r"it must be \(L, 3H, H\), so pass that"),
        ({"weight_hh": torch.zeros(2, 0, 0)}, ValueError, "H of at least 1"),
        ({"bias_hh": torch.zeros(2, 9).double()}, ValueError, "bias_hh is torch.float64"),
        ({"bias_hh": torch.zeros(2, 9).long()}, ValueError, "floating-point"),
        ({"input_gates": torch.zeros(2, 9, dtype=torch.cfloat)}, ValueError, "floating-point"),
        ({"input_gates": torch.zeros(2, 9).to(torch.float8_e5m2)}, ValueError, "16 bits or more"),
        ({"bias_hh": torch.zeros(2, 8)}, ValueError, r"be \(L, 3H\), .* is \(2, 9\)"),
        ({"bias_hh": torch.zeros(2, 9, device="meta")}, ValueError, "on meta"),
        ({"bias_hh": [0.0]}, TypeError, "bias_hh is a list"),
    ],
)
def test_bad_arguments_name_the_value_and_the_rule(change, error, sentence):
    arguments = {
        "input_gates": torch.zeros(2, 9),
        "weight_hh": torch.zeros(2, 9, 3),
        "bias_hh": torch.zeros(2, 9),
        "steps": [1, 1],
    }
    with pytest.raises(error, match=sentence):
        gru_unroll(**(arguments | change))


def test_a_forward_derivative_is_refused_and_not_zero():
    gates, *rest = inputs(2, 3, requires_grad=False)

    def states(gates):
        return gru_unroll(gates, *rest, [1, 2])

    with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        torch.func.jvp(states, (gates,), (gates,))
    with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        torch.func.jacfwd(states)(gates)
    with forward_ad.dual_level():
        with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
            states(forward_ad.make_dual(gates, gates))
        assert states(gates).shape == (3, 3)  # which has no tangent


def test_an_empty_batch_is_refused():
    gates, *rest = inputs(2, 3, requires_grad=False)
    with pytest.raises(ValueError, match="batch of 0 calls"):
        torch.vmap(lambda gates: gru_unroll(gates, *rest, [1, 2]))(gates.new_empty(0, *gates.shape))


def test_under_autocast_it_runs_in_float32():
    tensors = [tensor.detach().float() for tensor in inputs(3, 5)]
    expected = gru_unroll(*tensors, [4, 1, 9])
    gates, *rest = tensors
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gru_unroll(*tensors, [4, 1, 9]), expected)
        short = gru_unroll(gates.bfloat16(), *rest, [4, 1, 9])  # as a linear layer would give them
        leaves = [tensor.requires_grad_() for tensor in tensors]
        grads = torch.autograd.grad(gru_unroll(*leaves, [4, 1, 9]).sum(), leaves)
    torch.testing.assert_close(short, expected, atol=0.02, rtol=0.02)
    assert short.dtype == torch.float32
    outside = torch.autograd.grad(gru_unroll(*leaves, [4, 1, 9]).sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(grads, outside))


def test_bfloat16_arguments_are_summed_in_float32():
    tensors = [tensor.detach().bfloat16() for tensor in inputs(2, 6)]
    ours = gru_unroll(*tensors, [9, 25])
    assert ours.dtype == torch.bfloat16
    expected = gru_unroll(*(tensor.double() for tensor in tensors), [9, 25])
    assert torch.equal(ours, expected.bfloat16()) or (ours - expected).abs().max() < 2**-8


@pytest.mark.parametrize("transposed", [False, True])
def test_opcheck_of_the_backward_operator(transposed):
    gates, weight, bias = inputs(2, 4, requires_grad=False)
    if transposed:
        weight = weight.transpose(0, 1).contiguous().transpose(0, 1)
    hidden = gru_unroll(gates, weight, bias, [4, 1])
    tensors = torch.randn_like(hidden), hidden, gates, weight, bias
    arguments = (*tensors, [4, 1], None, False, [True, True, True, False], "auto")
    torch.library.opcheck(
        torch.ops.effconv.gru_unroll_backward.default,
        arguments,
        test_utils=("test_schema", "test_faketensor"),
    )
