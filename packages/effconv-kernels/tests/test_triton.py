"""Triton's programs against the plain float64 form; without a GPU they run in the interpreter."""

import pytest
import torch
from effconv_kernels import assemble_kernels, gru_unroll
from effconv_kernels.reference import assemble_kernels_reference, gru_unroll_reference

pytestmark = pytest.mark.usefixtures("unwritten_is_nan")

GRUS = [
    (48, [1, 4, 9, 49]),
    (64, [25, 9]),
    (65, [9]),
    (1, [3, 1]),
    (128, [4, 2]),
    (130, [4, 9]),  # from here on the weights do not fit on the chip
    (257, [3]),
]
MAPS = [
    (8, [3, 2, 7], [(5, 3), (70, 5), (2, 1)]),
    (65, [1, 4], [(3, 3), (11, 13)]),
    (130, [5], [(4, 4)]),
    (16, [9], [(1, 1)]),  # more taps than one block holds several times over
    (16, [2], [(70, 40)]),  # rows in several chunks
]


def gru_inputs(H, layers, dtype=torch.float64):
    generator = torch.Generator().manual_seed(H)
    shapes = [(layers, 3 * H), (layers, 3 * H, H), (layers, 3 * H)]
    gates, weight, bias = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    return [gates, weight / H**0.5, bias]


def map_inputs(H, sizes, channels, dtype=torch.float64):
    generator = torch.Generator().manual_seed(H)
    rows = sum(c_out * c_in for c_out, c_in in channels)
    shapes = [(sum(s * s for s in sizes), H), (rows, H), (rows,)]
    hidden, weight, bias = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    soft_sizes = torch.tensor([size + 0.3 for size in sizes], dtype=dtype)
    return [hidden, weight / H**0.5, bias, soft_sizes]


def upstream_of(*shape):
    """Draw a loss's gradient; unseeded, the soft sizes' one could cancel to almost nothing."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def with_gradients(function, tensors, upstream):
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = function(*leaves)
    return output, torch.autograd.grad(output, leaves, upstream.to(output))


def assert_near(ours, expected, tolerance=3e-6):
    """Compare by the largest value, since sums of many terms cancel in some elements."""
    ours = ours.detach().double().cpu()
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize(("H", "steps"), GRUS)
def test_gru_unroll_equals_the_reference(H, steps, triton_device):
    from effconv_kernels.triton import gru

    tensors = gru_inputs(H, len(steps))
    upstream = upstream_of(sum(steps), H)
    expected, expected_grads = with_gradients(
        lambda *t: gru_unroll_reference(*t, steps), tensors, upstream
    )
    ours = [tensor.float().to(triton_device) for tensor in tensors]
    states = gru.gru_unroll(*ours, steps)
    assert_near(states, expected.detach())
    grads = gru.gru_unroll_backward(upstream.float().to(triton_device), states, *ours, steps)
    for name, mine, theirs in zip(("gates", "weight", "bias"), grads, expected_grads, strict=True):
        assert mine.dtype == torch.float32, name
        assert_near(mine, theirs)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("centre", ["paper", "aligned"])
@pytest.mark.parametrize(("H", "sizes", "channels"), MAPS)
def test_assemble_kernels_equals_the_reference(H, sizes, channels, centre, last, triton_device):
    from effconv_kernels.triton import assemble

    def flat(kernels):
        return torch.cat([(k.permute(0, 2, 3, 1) if last else k).flatten() for k in kernels])

    tensors = map_inputs(H, sizes, channels)
    counts, inner = [c_out * c_in for c_out, c_in in channels], [c_in for _, c_in in channels]
    upstream = upstream_of(sum(c * s * s for c, s in zip(counts, sizes)))
    expected, expected_grads = with_gradients(
        lambda *t: flat(
            assemble_kernels_reference(*t, sizes=sizes, channels=channels, centre=centre)
        ),
        tensors,
        upstream,
    )
    ours = [tensor.float().to(triton_device) for tensor in tensors]
    which = sizes, counts, inner, centre, last
    assert_near(assemble.assemble_kernels(*ours, *which, torch.float32), expected.detach())
    grads = assemble.assemble_kernels_backward(upstream.float().to(triton_device), *ours, *which)
    for mine, theirs in zip(grads, expected_grads, strict=True):
        assert_near(mine, theirs, tolerance=1e-5)


def test_kernels_are_written_in_the_dtype_asked_for(triton_device):
    from effconv_kernels.triton import assemble

    tensors = [t.float().to(triton_device) for t in map_inputs(8, [3], [(5, 3)])]
    whole, short = (
        assemble.assemble_kernels(*tensors, [3], [15], [3], "paper", False, dtype)
        for dtype in (torch.float32, torch.float16)
    )
    assert short.dtype == torch.float16
    torch.testing.assert_close(short, whole.half(), atol=1e-3, rtol=1e-3)


gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@gpu
@needs_gpu
@pytest.mark.parametrize("H", [64, 300, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_operators_agree_with_the_cpu_form_on_a_gpu(H, dtype):
    sizes, channels = [3, 5, 2], [(16, 3), (32, 16), (8, 8)]
    steps = [s * s for s in sizes]
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float64: 1e-12}[dtype]
    tensors = [t.to(dtype) for t in gru_inputs(H, 3) + map_inputs(H, sizes, channels)[1:]]

    def run(*tensors):
        gates, weight, bias, *rest = tensors
        hidden = gru_unroll(gates, weight, bias, steps)
        kernels = assemble_kernels(hidden, *rest, sizes=sizes, channels=channels)
        return torch.cat([kernel.flatten() for kernel in kernels])

    values = sum(c_out * c_in * s * s for (c_out, c_in), s in zip(channels, sizes))
    upstream = upstream_of(values)
    expected, expected_grads = with_gradients(run, [t.double() for t in tensors], upstream)
    ours, grads = with_gradients(run, [t.cuda() for t in tensors], upstream)
    assert_near(ours, expected.detach(), tolerance)
    for mine, theirs in zip(grads, expected_grads, strict=True):
        assert mine.dtype == dtype
        assert_near(mine, theirs, tolerance)


@gpu
@needs_gpu
@pytest.mark.parametrize("H", [64, 128, 300])
def test_two_hundred_runs_give_the_same_bits(H):
    sizes, channels = [3, 5, 7, 2], [(64, 64), (32, 16), (8, 8), (100, 30)]
    steps = [s * s for s in sizes]
    tensors = [t.float().cuda() for t in gru_inputs(H, 4) + map_inputs(H, sizes, channels)[1:]]

    def run(*tensors):
        gates, weight, bias, *rest = tensors
        hidden = gru_unroll(gates, weight, bias, steps)
        kernels = assemble_kernels(hidden, *rest, sizes=sizes, channels=channels)
        return torch.cat([kernel.flatten() for kernel in kernels])

    upstream = upstream_of(sum(a * b * s * s for (a, b), s in zip(channels, sizes)))
    first, first_grads = with_gradients(run, tensors, upstream)
    for _ in range(200):
        again, grads = with_gradients(run, tensors, upstream)
        assert torch.equal(first, again)
        assert all(torch.equal(a, b) for a, b in zip(first_grads, grads))


@gpu
@needs_gpu
def test_both_operators_can_be_captured_in_a_cuda_graph():
    sizes, channels = [3, 5], [(16, 3), (32, 16)]
    tensors = [t.float().cuda() for t in gru_inputs(64, 2) + map_inputs(64, sizes, channels)[1:]]

    def run():
        hidden = gru_unroll(*tensors[:3], [s * s for s in sizes])
        return assemble_kernels(hidden, *tensors[3:], sizes=sizes, channels=channels)

    expected = [kernel.clone() for kernel in run()]  # also makes the tables
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for kernel in captured:
        kernel.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, expected))
