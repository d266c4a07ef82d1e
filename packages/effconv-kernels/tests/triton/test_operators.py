"""Both operators with Triton's programs; without a GPU they run in the interpreter."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from effconv_kernels import assemble_kernels, gru_unroll
from effconv_kernels.reference import assemble_kernels_reference, gru_unroll_reference

pytestmark = pytest.mark.usefixtures("unwritten_is_nan")

spec = importlib.util.spec_from_file_location("inputs", Path(__file__).with_name("inputs.py"))
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
assert_near, gru_inputs, map_inputs = inputs.assert_near, inputs.gru_inputs, inputs.map_inputs
rules_, shapes_ = inputs.rules_, inputs.shapes_
upstream_of, with_gradients = inputs.upstream_of, inputs.with_gradients


@pytest.fixture
def triton_form(monkeypatch, triton_device):
    """Let the operators run their Triton form wherever its programs run."""
    from effconv_kernels.triton import assemble, gru

    modules = {"gru": gru, "assemble": assemble}
    for module in ("effconv_kernels.gru", "effconv_kernels.assemble"):
        monkeypatch.setattr(sys.modules[module], "form_of", lambda name, *_: modules[name])
    return modules


def both_operators(tensors, sizes, channels):
    gates, weight, bias, *rest = tensors
    hidden = gru_unroll(gates, weight, bias, [size * size for size in sizes])
    kernels = assemble_kernels(hidden, *rest, sizes=sizes, channels=channels)
    return torch.cat([kernel.flatten() for kernel in kernels])


SHORT = {torch.bfloat16: 2**-6, torch.float16: 2**-9}  # a few roundings of 8 or 11 bits


@pytest.mark.parametrize(
    ("dtype", "H"),
    [
        *((torch.bfloat16, 24), (torch.float16, 24), (torch.bfloat16, 130)),
        pytest.param(torch.float16, 130, marks=pytest.mark.long),
    ],
)
def test_short_tensors_through_the_operators(H, dtype, triton_form, triton_device):
    sizes, channels = [1, 3, 2], [(3, 5), (7, 2), (70, 1)]
    tensors = gru_inputs(H, 3) + map_inputs(H, sizes, channels)[1:]
    tensors = [tensor.to(dtype) for tensor in tensors]
    upstream = upstream_of(15 + 9 * 14 + 4 * 70).to(dtype)
    expected, expected_grads = reference_of_both(tensors, upstream, sizes, channels)
    ours, grads = with_gradients(
        lambda *t: both_operators(t, sizes, channels),
        [tensor.to(triton_device) for tensor in tensors],
        upstream,
    )
    assert ours.dtype == dtype
    assert_near(ours, expected, SHORT[dtype])
    for mine, theirs in zip(grads, expected_grads, strict=True):
        assert mine.dtype == dtype
        assert_near(mine, theirs, SHORT[dtype])


@pytest.mark.parametrize("H", [5, 130])
def test_strided_tensors_through_the_operators(H, triton_form, triton_device):
    sizes, channels = [2, 1], [(3, 2), (2, 2)]
    tensors = gru_inputs(H, 2) + map_inputs(H, sizes, channels)[1:]
    upstream = upstream_of(28)
    expected, expected_grads = reference_of_both(tensors, upstream, sizes, channels)
    strided = [torch.stack([tensor.float()] * 2, dim=-1)[..., 0] for tensor in tensors]
    assert not any(tensor.is_contiguous() for tensor in strided)
    ours, grads = with_gradients(
        lambda *t: both_operators(t, sizes, channels),
        [tensor.to(triton_device) for tensor in strided],
        upstream,
    )
    assert_near(ours, expected, 1e-5)
    for mine, theirs in zip(grads, expected_grads, strict=True):
        assert_near(mine, theirs, 1e-5)


def reference_of_both(tensors, upstream, sizes, channels):
    """Give the float64 output and gradients of the plain form."""

    def run(gates, weight, bias, *rest):
        hidden = gru_unroll_reference(gates, weight, bias, [size * size for size in sizes])
        kernels = assemble_kernels_reference(hidden, *rest, sizes=sizes, channels=channels)
        return torch.cat([kernel.flatten() for kernel in kernels])

    output, grads = with_gradients(run, [tensor.double() for tensor in tensors], upstream)
    return output.detach(), grads


def test_opcheck_of_the_triton_form(triton_form, triton_device):
    gates, weight, bias, *rest = (
        tensor.float().to(triton_device).requires_grad_()
        for tensor in gru_inputs(6, 2) + map_inputs(6, [2, 1], [(3, 2), (2, 2)])[1:]
    )
    torch.library.opcheck(
        torch.ops.effconv.gru_unroll.default, (gates, weight, bias, [4, 1], None, False, "auto")
    )
    hidden = gru_unroll(gates, weight, bias, [4, 1]).detach().requires_grad_()
    which = (
        shapes_([2, 1]),
        [6, 4],
        [2, 2],
        rules_([2, 1]),
        "paper",
        True,
        torch.float32,
        "ieee",
        "auto",
    )
    torch.library.opcheck(torch.ops.effconv.assemble_kernels.default, (hidden, *rest, *which))


@pytest.mark.parametrize("H", [64, 130])
def test_launches(H, monkeypatch, triton_form, triton_device):
    """One launch for all layers forward; three back, and one that sums over blocks of taps."""
    launched = []

    class Counted:
        def __init__(self, name, program):
            self.name, self.program = name, program

        def __getitem__(self, grid):
            launched.append(self.name)
            return self.program[grid]

    for module in triton_form.values():
        for name in set(vars(module)) & PROGRAMS:
            monkeypatch.setattr(module, name, Counted(name, getattr(module, name)))
    sizes, channels = [2, 1, 3], [(3, 2), (2, 2), (1, 5)]
    tensors = gru_inputs(H, 3) + map_inputs(H, sizes, channels)[1:]
    leaves = [tensor.float().to(triton_device).requires_grad_() for tensor in tensors]
    output = both_operators(leaves, sizes, channels)
    kind = "on_chip" if H <= 128 else "streamed"
    assert launched == [f"_forward_{kind}", "_forward"]
    launched.clear()
    output.sum().backward()
    assert launched == [
        *("_backward", "_grad_states", "_grad_soft"),
        *("_slopes", f"_backward_{kind}", "_grad_parameters"),
    ]


PROGRAMS = {
    *("_forward_on_chip", "_forward_streamed", "_slopes", "_backward_on_chip"),
    *("_backward_streamed", "_grad_parameters"),
    *("_forward", "_backward", "_grad_states", "_grad_soft"),
}

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@gpu
@needs_gpu
@pytest.mark.parametrize("H", [64, 65, 128, 300, 512, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_operators_agree_with_the_cpu_form_on_a_gpu(H, dtype):
    sizes, channels = [3, 5, 2], [(16, 3), (32, 16), (8, 8)]
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float64: 1e-12}[dtype]
    tensors = [t.to(dtype) for t in gru_inputs(H, 3) + map_inputs(H, sizes, channels)[1:]]

    def run(*tensors):
        return both_operators(tensors, sizes, channels)

    values = sum(c_out * c_in * s * s for (c_out, c_in), s in zip(channels, sizes))
    upstream = upstream_of(values)
    expected, expected_grads = with_gradients(run, [t.double() for t in tensors], upstream)
    ours, grads = with_gradients(run, [t.cuda() for t in tensors], upstream)
    assert_near(ours, expected.detach(), tolerance)
    for mine, theirs in zip(grads, expected_grads, strict=True):
        assert mine.dtype == dtype
        assert_near(mine, theirs, tolerance)


def test_a_second_run_gives_the_same_bits(triton_form, triton_device):
    sizes, channels = [2, 1], [(70, 2), (2, 2)]
    tensors = gru_inputs(5, 2) + map_inputs(5, sizes, channels)[1:]
    tensors = [tensor.float().to(triton_device) for tensor in tensors]

    def run(*tensors):
        return both_operators(tensors, sizes, channels)

    first, again = (with_gradients(run, tensors, upstream_of(564)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))


@gpu
@needs_gpu
@pytest.mark.parametrize("H", [64, 128, 300])
def test_two_hundred_runs_give_the_same_bits(H):
    sizes, channels = [3, 5, 7, 2], [(64, 64), (32, 16), (8, 8), (100, 30)]
    tensors = [t.float().cuda() for t in gru_inputs(H, 4) + map_inputs(H, sizes, channels)[1:]]

    def run(*tensors):
        return both_operators(tensors, sizes, channels)

    upstream = upstream_of(sum(a * b * s * s for (a, b), s in zip(channels, sizes)))
    first, first_grads = with_gradients(run, tensors, upstream)
    for _ in range(200):
        again, grads = with_gradients(run, tensors, upstream)
        assert torch.equal(first, again)
        assert all(torch.equal(a, b) for a, b in zip(first_grads, grads))


@gpu
@needs_gpu
@pytest.mark.parametrize("H", [64, 300, 600])
def test_both_operators_can_be_captured_in_a_cuda_graph(H):
    sizes, channels = [3, 5], [(16, 3), (32, 16)]
    tensors = [t.float().cuda() for t in gru_inputs(H, 2) + map_inputs(H, sizes, channels)[1:]]
    leaves = [tensor.requires_grad_() for tensor in tensors]

    def run():
        kernels = both_operators(leaves, sizes, channels)
        return [kernels.detach(), *torch.autograd.grad(kernels.sum(), leaves)]

    expected = [found.clone() for found in run()]  # also makes the tables
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for found in captured:
        found.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, expected))


@gpu
@needs_gpu
@pytest.mark.parametrize("H", [64, 600])
def test_nothing_waits_for_the_device(H):
    sizes, channels = [3, 5], [(16, 3), (32, 16)]
    leaves = [
        t.float().cuda().requires_grad_()
        for t in gru_inputs(H, 2) + map_inputs(H, sizes, channels)[1:]
    ]
    both_operators(leaves, sizes, channels).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for other in ([3, 5], [5, 3]):  # the second has new tables
            hidden = gru_unroll(*leaves[:3], [size * size for size in other])
            kernels = assemble_kernels(hidden, *leaves[3:], sizes=other, channels=channels)
            torch.autograd.grad([k.sum() for k in kernels], leaves)
    finally:
        torch.cuda.set_sync_debug_mode("default")
