"""Triton's programs against the plain float64 form; without a GPU they run in the interpreter."""

import sys

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
    (512, [2]),
]
MAPS = [
    (8, [3, 2, 7], [(5, 3), (70, 5), (2, 1)]),
    (65, [1, 4], [(3, 3), (11, 13)]),
    (130, [5], [(4, 4)]),
    (16, [9], [(1, 1)]),  # more taps than one block holds several times over
    (16, [2], [(70, 40)]),  # rows in several chunks
    (33, [5], [(9, 8)]),  # between 16 and 32 taps
    (64, [8], [(13, 5)]),  # as many taps as one block holds
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


def fenced(tensor, device):
    """Give a copy that lies amid NaN, so that a read past its ends shows."""
    whole = torch.full((tensor.numel() + 8192,), torch.nan, dtype=tensor.dtype, device=device)
    inner = whole[4096:-4096].view(tensor.shape)
    return inner.copy_(tensor)


def shapes_(sizes):
    """Return the taps along three axes of square kernels."""
    return [extent for size in sizes for extent in (1, size, size)]


def rules_(sizes):
    """Return the soft sizes of their axes."""
    return [rule for layer in range(len(sizes)) for rule in (-1, layer, layer)]


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
    *ours, grad = (fenced(tensor.float(), triton_device) for tensor in (*tensors, upstream))
    states = gru.gru_unroll(*ours, steps, None, False)
    assert_near(states, expected.detach())
    states = fenced(states, triton_device)
    grads = gru.gru_unroll_backward(grad, states, *ours, steps, None, False, [True] * 3 + [False])
    for name, mine, theirs in zip(("gates", "weight", "bias"), grads, expected_grads, strict=True):
        assert mine.dtype == torch.float32, name
        assert_near(mine, theirs)


def test_small_states_keep_their_digits(triton_device):
    from effconv_kernels.triton import gru

    # h = (1 - sigma(0)) tanh(x) from a zero state and zero weights.
    x = torch.logspace(-7, 1, 161, dtype=torch.float64)
    x = torch.cat([x, -x])
    gates = torch.stack([0 * x, 0 * x, x], 1)
    weight, bias = torch.zeros(len(x), 3, 1), torch.zeros(len(x), 3)
    tensors = (tensor.float().to(triton_device) for tensor in (gates, weight, bias))
    states = gru.gru_unroll(*tensors, [1] * len(x), None, False)[:, 0].double().cpu()
    torch.testing.assert_close(states, gates.float().double()[:, 2].tanh() / 2, rtol=4e-7, atol=0)


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
    *ours, grad = (fenced(tensor.float(), triton_device) for tensor in (*tensors, upstream))
    which = shapes_(sizes), counts, inner, rules_(sizes), centre, last
    assert_near(assemble.assemble_kernels(*ours, *which, torch.float32, "ieee"), expected.detach())
    grads = assemble.assemble_kernels_backward(grad, *ours, *which, [True] * 4, "ieee")
    for mine, theirs in zip(grads, expected_grads, strict=True):
        assert_near(mine, theirs, tolerance=1e-5)


def test_kernels_are_written_in_the_dtype_asked_for(triton_device):
    from effconv_kernels.triton import assemble

    tensors = [t.float().to(triton_device) for t in map_inputs(8, [3], [(5, 3)])]
    whole, short = (
        assemble.assemble_kernels(
            *tensors, [1, 3, 3], [15], [3], [-1, 0, 0], "paper", False, dtype, "ieee"
        )
        for dtype in (torch.float32, torch.float16)
    )
    assert short.dtype == torch.float16
    torch.testing.assert_close(short, whole.half(), atol=1e-3, rtol=1e-3)


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


@pytest.mark.parametrize("H", [24, 130])
@pytest.mark.parametrize("dtype", SHORT)
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
        *("_grad_map", "_sum_chunk", "_grad_states", "_grad_soft"),
        *("_slopes", f"_backward_{kind}", "_grad_parameters"),
    ]


PROGRAMS = {
    *("_forward_on_chip", "_forward_streamed", "_slopes", "_backward_on_chip"),
    *("_backward_streamed", "_grad_parameters"),
    *("_forward", "_grad_map", "_sum_chunk", "_grad_states", "_grad_soft"),
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
def test_new_sizes_in_a_capture_are_refused_with_the_remedy():
    tensors = [tensor.float().cuda() for tensor in gru_inputs(64, 2)]
    gru_unroll(*tensors, [4, 4])  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with (
        pytest.raises(RuntimeError, match="with the same sizes once before"),
        torch.cuda.graph(graph),
    ):
        gru_unroll(*tensors, [17, 19])


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


@gpu
@needs_gpu
@pytest.mark.parametrize("H", [64, 600])
def test_tables_that_another_stream_still_copies_are_waited_for(H):
    tensors, steps = [tensor.float().cuda() for tensor in gru_inputs(H, 3)], [7, 11, 2]
    gru_unroll(*tensors, steps[::-1])  # compiles, with other tables
    expected = gru_unroll_reference(*(tensor.double().cpu() for tensor in tensors), steps)
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(500_000_000)  # cycles, before the tables are copied
        gru_unroll(*tensors, steps)
    assert_near(gru_unroll(*tensors, steps), expected, 1e-5)


@gpu
@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_on_a_device_that_is_not_the_current_one():
    tensors = gru_inputs(64, 2)
    expected = gru_unroll_reference(*tensors, [9, 4])
    assert_near(gru_unroll(*(t.float().to("cuda:1") for t in tensors), [9, 4]), expected, 1e-5)
