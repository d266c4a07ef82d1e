"""Triton's programs of `gru_unroll` against the plain float64 form."""

import importlib.util
from pathlib import Path

import pytest
import torch
from effconv_kernels import gru_unroll
from effconv_kernels.reference import gru_unroll_reference

pytestmark = pytest.mark.usefixtures("unwritten_is_nan")

GRUS = [
    (48, [1, 4, 9, 49]),
    (64, [25, 9]),
    (65, [9]),
    (1, [3, 1]),
    (128, [4, 2]),
    (130, [4, 9]),  # whose weights do not fit on the chip
]

spec = importlib.util.spec_from_file_location("inputs", Path(__file__).with_name("inputs.py"))
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
assert_near, fenced, gru_inputs = inputs.assert_near, inputs.fenced, inputs.gru_inputs
upstream_of, with_gradients = inputs.upstream_of, inputs.with_gradients


@pytest.fixture
def launched_for(monkeypatch, triton_device):
    """Let the programs be launched as for a card and a version of Triton, where there is no GPU."""
    from effconv_kernels.triton import cards, gru

    def launched_for(card, old):
        if triton_device == "cpu":
            monkeypatch.setattr(gru, "card_of", lambda device: card)
            for module in (cards, gru):
                monkeypatch.setattr(module, "OLD", old)

    return launched_for


@pytest.mark.parametrize(
    ("H", "steps", "card", "old"),
    [
        *((*case, 90, False) for case in GRUS),
        *(pytest.param(H, [2], 90, False, marks=pytest.mark.long) for H in (257, 512)),
        *((128, [3, 1], card, False) for card in (75, 100)),
        *((H, [4, 2], 90, True) for H in (1, 48, 65)),
    ],
)
def test_gru_unroll_equals_the_reference(H, steps, card, old, launched_for, triton_device):
    from effconv_kernels.triton import gru

    launched_for(card, old)
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


@pytest.mark.parametrize("card", [70, 90, 120])
def test_gradients_of_short_weights_are_as_near_and_as_short_on_every_card(
    card, launched_for, triton_device
):
    from effconv_kernels.triton import gru

    launched_for(card, False)
    steps, dtype = [2, 3], torch.bfloat16
    tensors = [tensor.to(dtype) for tensor in gru_inputs(128, 2)]
    upstream = upstream_of(5, 128).to(dtype)
    expected, expected_grads = with_gradients(
        lambda *t: gru_unroll_reference(*t, steps),
        [tensor.double() for tensor in tensors],
        upstream,
    )
    *ours, grad = (fenced(tensor, triton_device) for tensor in (*tensors, upstream))
    states = fenced(gru.gru_unroll(*ours, steps, None, False), triton_device)
    assert_near(states, expected.detach(), 2**-7)
    grads = gru.gru_unroll_backward(grad, states, *ours, steps, None, False, [True] * 3)
    for mine, theirs in zip(grads, expected_grads, strict=True):
        assert mine.dtype == dtype
        assert_near(mine, theirs, 2**-6)


def test_small_states_keep_their_digits(triton_device):
    from effconv_kernels.triton import gru

    # h = (1 - sigma(0)) tanh(x) from a zero state and zero weights.
    x = torch.logspace(-7, 1, 81, dtype=torch.float64)
    x = torch.cat([x, -x])
    gates = torch.stack([0 * x, 0 * x, x], 1)
    weight, bias = torch.zeros(len(x), 3, 1), torch.zeros(len(x), 3)
    tensors = (tensor.float().to(triton_device) for tensor in (gates, weight, bias))
    states = gru.gru_unroll(*tensors, [1] * len(x), None, False)[:, 0].double().cpu()
    torch.testing.assert_close(states, gates.float().double()[:, 2].tanh() / 2, rtol=4e-7, atol=0)


gpu = pytest.mark.gpu

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


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
