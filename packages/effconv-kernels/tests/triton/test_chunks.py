"""Chunks of several blocks of rows, and of more taps than registers hold, against float64."""

import importlib.util
from pathlib import Path

import pytest
import torch
from effconv_kernels.reference import assemble_kernels_reference

pytestmark = pytest.mark.usefixtures("unwritten_is_nan")

spec = importlib.util.spec_from_file_location("inputs", Path(__file__).with_name("inputs.py"))
inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(inputs)

SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9]
CHANNELS = [(1, 1), (63, 1), (41, 50), (9, 7), (1, 2), (13, 5), (5, 13), (2, 1), (26, 5)]


@pytest.fixture
def few_chunks(monkeypatch):
    """Let the rows of all maps share two chunks, so that the larger ones are of many blocks."""
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    from effconv_kernels.triton import tables

    monkeypatch.setattr(tables, "CHUNKS", 2)
    tables._tables.cache_clear()
    yield
    tables._tables.cache_clear()


def drawn(H, sizes, channels, device):
    """Return float64 tensors of an assembly, the same in float32 amid NaN, and its integers."""
    tensors = inputs.map_inputs(H, sizes, channels)
    counts, inner = [c_out * c_in for c_out, c_in in channels], [c_in for _, c_in in channels]
    tensors.append(inputs.upstream_of(sum(c * s * s for c, s in zip(counts, sizes))))
    ours = [inputs.fenced(tensor.float(), device) for tensor in tensors]
    return tensors, ours, (inputs.shapes_(sizes), counts, inner, inputs.rules_(sizes))


@pytest.mark.parametrize(
    ("H", "last", "masked"),
    [
        *((20, False, True), (70, True, False)),
        *(
            pytest.param(*way, marks=pytest.mark.long)
            for way in ((20, False, False), (70, True, True))
        ),
    ],
)
def test_gradients_of_all_sizes(H, last, masked, few_chunks, triton_device):
    from effconv_kernels.triton import assemble

    def run(*tensors):
        soft = tensors[3] if masked else None
        found = assemble_kernels_reference(*tensors[:3], soft, sizes=SIZES, channels=CHANNELS)
        return torch.cat([(k.permute(0, 2, 3, 1) if last else k).flatten() for k in found])

    (*tensors, upstream), (*ours, grad), which = drawn(H, SIZES, CHANNELS, triton_device)
    known = 4 if masked else 3
    _, expected = inputs.with_gradients(run, tensors[:known], upstream)
    if not masked:
        ours[3] = None
    needs = [True] * known + [False] * (4 - known)
    found = assemble.assemble_kernels_backward(grad, *ours, *which, "paper", last, needs, "ieee")
    for mine, theirs in zip(found, expected, strict=True):
        inputs.assert_near(mine, theirs, tolerance=1e-5)


@pytest.mark.parametrize(("sizes", "all_needs"), [([3, 2], range(16)), ([9, 5], (1, 2, 4, 8))])
def test_gradients_that_are_needed_have_the_same_bits_whichever_others_are(
    sizes, all_needs, few_chunks, triton_device
):
    from effconv_kernels.triton import assemble

    _, (*ours, grad), which = drawn(8, sizes, [(5, 14), (1, 2)], triton_device)
    arguments = grad, *ours, *which, "aligned", False
    whole = assemble.assemble_kernels_backward(*arguments, [True] * 4, "ieee")
    for chosen in all_needs:
        needs = [bool(chosen >> place & 1) for place in range(4)]
        found = assemble.assemble_kernels_backward(*arguments, needs, "ieee")
        wanted = [grad for grad, needed in zip(whole, needs, strict=True) if needed]
        assert len(found) == len(wanted)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
