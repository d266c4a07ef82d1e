"""Triton's programs of `assemble_kernels` against the plain float64 form."""

import importlib.util
from pathlib import Path

import pytest
import torch
from effconv_kernels.reference import assemble_kernels_reference

pytestmark = pytest.mark.usefixtures("unwritten_is_nan")

MAPS = [
    (8, [3, 2, 7], [(5, 3), (70, 5), (2, 1)]),
    (65, [1, 4], [(3, 3), (11, 13)]),
    (130, [5], [(4, 4)]),
    (16, [9], [(1, 1)]),  # more taps than one block holds several times over
    (16, [2], [(70, 40)]),  # rows in several chunks
    (33, [5], [(9, 8)]),  # between 16 and 32 taps
    (64, [8], [(13, 5)]),  # as many taps as one block holds
]

spec = importlib.util.spec_from_file_location("inputs", Path(__file__).with_name("inputs.py"))
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)
assert_near, fenced, map_inputs = inputs.assert_near, inputs.fenced, inputs.map_inputs
rules_, shapes_ = inputs.rules_, inputs.shapes_
upstream_of, with_gradients = inputs.upstream_of, inputs.with_gradients


@pytest.mark.parametrize("taps", [7, 9])
def test_gradients_are_the_same_where_programs_take_fewer_units(taps, monkeypatch, triton_device):
    from effconv_kernels.triton import assemble

    (*tensors, soft), channels = map_inputs(65, [taps], [(5, 3)]), [(5, 3)]
    upstream = upstream_of(15 * taps * taps)

    def run(*t):
        (kernel,) = assemble_kernels_reference(*t, sizes=[taps], channels=channels)
        return kernel.flatten()

    _, expected = with_gradients(run, (*tensors, soft), upstream)
    ours = [fenced(tensor.float(), triton_device) for tensor in (upstream, *tensors, soft)]
    if triton_device == "cpu":
        monkeypatch.setattr(assemble, "card_of", lambda device: 120)
        assert assemble._backward_shape(65, 64, 120) == (32, 8)
    which = shapes_([taps]), [15], [3], rules_([taps]), "paper", False, [True] * 4, "ieee"
    for mine, theirs in zip(
        assemble.assemble_kernels_backward(*ours, *which), expected, strict=True
    ):
        assert_near(mine, theirs, tolerance=1e-5)


@pytest.mark.parametrize(
    ("H", "sizes", "channels", "centre", "last"),
    [
        # Of the first maps all four ways, of the others two, in which each centre and layout is.
        pytest.param(*maps, centre, last, marks=[pytest.mark.long] * (maps != MAPS[0] and other))
        for maps in MAPS
        for centre, last, other in (
            *(("paper", False, False), ("aligned", True, False)),
            *(("paper", True, True), ("aligned", False, True)),
        )
    ],
)
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
