import pytest
import torch
from effconv_kernels import assemble_kernels
from effconv_kernels.reference import assemble_kernels_reference
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ["hidden", "weight", "bias", "soft_sizes"]


def inputs(sizes, channels, H, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    rows = sum(c_out * c_in for c_out, c_in in channels)
    shapes = [(sum(s * s for s in sizes), H), (rows, H), (rows,)]
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    soft = torch.tensor(sizes, dtype=dtype)
    soft += torch.rand(len(sizes), generator=generator, dtype=dtype) - 0.5
    return [tensor.requires_grad_() for tensor in [*tensors, soft]]


def test_two_taps_by_hand():
    # One channel, H = 1, map 2, bias 1: raw values 2 h + 1 = [3, 5, 7, 9] for h = [1, 2, 3, 4].
    # s = 2, v = 2, c = v/2 = 1: distances to (1, 1) are 0, 1, 1, 2, so the mask is
    # [1, e^-0.25, e^-0.25, e^-0.5] = [1, 0.7788008, 0.7788008, 0.6065307].
    (kernel,) = assemble_kernels(
        torch.tensor([[1.0], [2.0], [3.0], [4.0]]),
        torch.tensor([[2.0]]),
        torch.tensor([1.0]),
        torch.tensor([2.0]),
        sizes=[2],
        channels=[(1, 1)],
    )
    expected = torch.tensor([[3.0, 3.894004], [5.451606, 5.458776]])
    torch.testing.assert_close(kernel[0, 0], expected)


def test_aligned_centre_by_hand():
    # s = 3, v = 2, c = 2: corner distance 2, edge 1, middle 0.
    (kernel,) = assemble_kernels(
        torch.ones(9, 1),
        torch.ones(1, 1),
        torch.zeros(1),
        torch.tensor([2.0]),
        sizes=[3],
        channels=[(1, 1)],
        centre="aligned",
    )
    corner, edge = 0.6065307, 0.7788008
    expected = torch.tensor([[corner, edge, corner], [edge, 1.0, edge], [corner, edge, corner]])
    torch.testing.assert_close(kernel[0, 0], expected)


@settings(deadline=None, max_examples=30)
@given(
    layers=st.lists(
        st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4
    ),
    H=st.integers(1, 6),
    centre=st.sampled_from(["paper", "aligned"]),
    seed=st.integers(0, 1000),
)
def test_output_and_every_gradient_equal_the_reference(layers, H, centre, seed):
    sizes, channels = [s for s, _, _ in layers], [(o, i) for _, o, i in layers]
    tensors = inputs(sizes, channels, H, seed=seed)
    keywords = {"sizes": sizes, "channels": channels, "centre": centre}
    ours = assemble_kernels(*tensors, **keywords)
    reference = assemble_kernels_reference(*tensors, **keywords)
    generator = torch.Generator().manual_seed(seed)
    upstream = [torch.randn(k.shape, generator=generator, dtype=torch.float64) for k in ours]
    torch.testing.assert_close(ours, reference)
    for name, mine, theirs in zip(
        NAMES,
        torch.autograd.grad(ours, tensors, upstream),
        torch.autograd.grad(reference, tensors, upstream),
    ):
        torch.testing.assert_close(mine, theirs, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("centre", ["paper", "aligned"])
def test_gradcheck(centre):
    sizes, channels = [3, 2, 1], [(2, 1), (1, 3), (2, 2)]
    torch.autograd.gradcheck(
        lambda *t: assemble_kernels(*t, sizes=sizes, channels=channels, centre=centre),
        inputs(sizes, channels, 2),
    )


def test_kernels_are_contiguous_views_of_one_buffer():
    sizes, channels = [3, 2], [(2, 3), (4, 1)]
    kernels = assemble_kernels(*inputs(sizes, channels, 4), sizes=sizes, channels=channels)
    assert [tuple(k.shape) for k in kernels] == [(2, 3, 3, 3), (4, 1, 2, 2)]
    assert all(k.is_contiguous() for k in kernels)
    assert kernels[0].untyped_storage().data_ptr() == kernels[1].untyped_storage().data_ptr()


def test_channels_last_kernels_are_the_same_values_with_the_same_gradients():
    sizes, channels = [3, 2, 5], [(2, 3), (4, 1), (3, 5)]
    tensors = inputs(sizes, channels, 4)
    upstream = [
        torch.randn(*pair, size, size, dtype=torch.float64) for pair, size in zip(channels, sizes)
    ]
    found = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        kernels = assemble_kernels(
            *tensors, sizes=sizes, channels=channels, memory_format=memory_format
        )
        assert all(kernel.is_contiguous(memory_format=memory_format) for kernel in kernels)
        found.append([*kernels, *torch.autograd.grad(kernels, tensors, upstream)])
    for plain, last in zip(*found, strict=True):
        torch.testing.assert_close(plain, last)


def test_kernels_in_another_dtype_keep_gradients_of_the_arguments_dtype():
    tensors = inputs([3], [(2, 3)], 4)
    (kernel,) = assemble_kernels(*tensors, sizes=[3], channels=[(2, 3)], dtype=torch.bfloat16)
    assert kernel.dtype == torch.bfloat16
    grads = torch.autograd.grad(kernel.sum(), tensors)
    assert all(grad.dtype == torch.float64 for grad in grads)


@pytest.mark.parametrize("last", [False, True])
def test_opcheck(last):
    sizes, channels = [3, 2], [(2, 3), (4, 1)]
    which = [1, 3, 3, 1, 2, 2], [6, 4], [3, 1], [-1, 0, 0, -1, 1, 1], "paper", last
    arguments = (*inputs(sizes, channels, 4), *which, torch.float64, "ieee", "auto")
    torch.library.opcheck(torch.ops.effconv.assemble_kernels.default, arguments)


def test_a_forward_derivative_is_refused_and_not_zero():
    *tensors, soft_sizes = inputs([3], [(2, 3)], 4)

    def kernel(soft_sizes):
        return assemble_kernels(*tensors, soft_sizes, sizes=[3], channels=[(2, 3)])[0]

    with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        torch.func.jacfwd(kernel)(soft_sizes)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"sizes": [2, 3]}, ValueError, "sizes has length 2 for 1 layers"),
        ({"channels": [(2, 3)] * 2}, ValueError, "channels has length 2 for 1 layers"),
        ({"sizes": [0]}, ValueError, r"sizes\[0\] is 0"),
        ({"sizes": [257]}, ValueError, r"sizes\[0\] is 257; it may be at most 256"),
        ({"sizes": 2}, ValueError, "sizes is 2; it must have one integer for each of the 1 layers"),
        ({"sizes": torch.tensor([2.0])}, ValueError, "sizes is a torch.float32 tensor"),
        ({"channels": 6}, TypeError, "channels is a int; pass a sequence of pairs"),
        ({"channels": [(-2, -3)]}, ValueError, r"channels \(out\)\[0\] is -2"),
        ({"dtype": torch.float8_e5m2}, ValueError, "dtype is torch.float8_e5m2; it must be"),
        ({"soft_sizes": torch.ones(1, device="meta")}, ValueError, "on meta"),
        ({"hidden": torch.zeros(2, 2, 5)}, ValueError, r"it must be \(sum of taps, H\), so pass"),
        ({"sizes": [3]}, ValueError, r"hidden has shape \(4, 5\).*\(9, 5\)"),
        ({"channels": [(2, 4)]}, ValueError, r"weight has shape \(6, 5\).*\(8, 5\)"),
        ({"channels": [(2, 0)]}, ValueError, r"channels \(in\)\[0\] is 0"),
        ({"centre": "middle"}, ValueError, "pass 'paper' or 'aligned'"),
        ({"memory_format": torch.preserve_format}, ValueError, "pass torch.contiguous_format or"),
        ({"dtype": torch.int32}, ValueError, "dtype is torch.int32; it must be a floating-point"),
        ({"hidden": torch.zeros(4, 0)}, ValueError, "must have at least one unit"),
        ({"channels": [6]}, ValueError, r"channels\[0\] is 6; pass a pair"),
        ({"channels": [(2, 3, 1)]}, ValueError, r"channels\[0\] is \(2, 3, 1\); pass a pair"),
        ({"bias": torch.zeros(5)}, ValueError, r"bias has shape \(5,\)"),
        ({"soft_sizes": torch.zeros(0)}, ValueError, "soft_sizes is empty"),
        ({"soft_sizes": torch.tensor([2])}, ValueError, "floating-point"),
    ],
)
def test_bad_arguments_name_the_value_and_the_rule(change, error, sentence):
    arguments = {
        "hidden": torch.zeros(4, 5),
        "weight": torch.zeros(6, 5),
        "bias": torch.zeros(6),
        "soft_sizes": torch.ones(1),
        "sizes": [2],
        "channels": [(2, 3)],
    }
    with pytest.raises(error, match=sentence):
        assemble_kernels(**(arguments | change))


@pytest.mark.slow
def test_runs_inside_a_fullgraph_compile():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 4, generator=generator)
    soft = torch.tensor([3.2, 1.7], requires_grad=True)

    def energy(hidden, soft_sizes, *sizes):
        kernels = assemble_kernels(
            hidden, weight, torch.zeros(10), soft_sizes, sizes=sizes, channels=[(2, 3), (4, 1)]
        )
        return sum(kernel.square().sum() for kernel in kernels)

    compiled = torch.compile(energy, fullgraph=True)
    # Other sizes than those of the first call are traced as unknown integers.
    for sizes in ([3, 2], [4, 3], [2, 5]):
        states = sum(size * size for size in sizes)
        hidden = torch.randn(states, 4, generator=generator).requires_grad_()
        eager, found = energy(hidden, soft, *sizes), compiled(hidden, soft, *sizes)
        torch.testing.assert_close(found, eager)
        torch.testing.assert_close(
            torch.autograd.grad(found, (hidden, soft)), torch.autograd.grad(eager, (hidden, soft))
        )


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_vmap_also_of_the_backward_pass(memory_format):
    sizes, channels = [3, 2], [(2, 3), (4, 1)]
    hidden, weight, bias, soft = inputs(sizes, channels, 4)
    many = torch.stack([soft, soft + 0.1, soft - 0.1]).detach().requires_grad_()

    def flat(soft):
        kernels = assemble_kernels(
            *(hidden, weight, bias, soft),
            sizes=sizes,
            channels=channels,
            memory_format=memory_format,
        )
        return torch.cat([kernel.flatten() for kernel in kernels])

    ours, each = torch.vmap(flat)(many), torch.stack([flat(soft) for soft in many])
    torch.testing.assert_close(ours, each)
    leaves, upstream = (hidden, weight, bias, many), torch.randn_like(each)
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(each, leaves, upstream)
    )
    one = flat(soft)
    upstream = torch.randn(3, *one.shape, dtype=torch.float64)
    batched = torch.autograd.grad(one, leaves[:3], upstream, True, is_grads_batched=True)
    for index, single in enumerate(upstream):
        expected = torch.autograd.grad(one, leaves[:3], single, retain_graph=True)
        torch.testing.assert_close([grad[index] for grad in batched], list(expected))


@pytest.mark.parametrize("last", [False, True])
def test_opcheck_of_the_backward_operator(last):
    sizes, channels = [3, 2], [(2, 3), (4, 1)]
    hidden, weight, bias, soft = (t.detach() for t in inputs(sizes, channels, 4))
    weight = weight.t().contiguous().t()  # other strides than those of its gradient
    grad = torch.randn(6 * 9 + 4 * 4, dtype=torch.float64)
    which = [1, 3, 3, 1, 2, 2], [6, 4], [3, 1], [-1, 0, 0, -1, 1, 1], "paper", last
    torch.library.opcheck(
        torch.ops.effconv.assemble_kernels_backward.default,
        (grad, hidden, weight, bias, soft, *which, [True] * 4, "ieee", "auto"),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_short_arguments_are_summed_in_float32_also_under_autocast():
    tensors = [tensor.detach().bfloat16() for tensor in inputs([3], [(2, 3)], 4)]
    (expected,) = assemble_kernels(
        *(tensor.double() for tensor in tensors), sizes=[3], channels=[(2, 3)]
    )
    (ours,) = assemble_kernels(*tensors, sizes=[3], channels=[(2, 3)], dtype=torch.float32)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        (cast,) = assemble_kernels(*tensors, sizes=[3], channels=[(2, 3)])
    assert torch.equal(cast, ours)
