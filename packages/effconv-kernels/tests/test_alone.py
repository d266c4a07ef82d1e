"""The package where Triton, or a GPU, is missing; and what a GPU's streams ask of its tables."""

import subprocess
import sys

import pytest
import torch
from effconv_kernels import device_tables, dispatch, eager

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
from effconv_kernels import assemble_kernels, gru_unroll, dispatch as forms
hidden = gru_unroll(torch.zeros(1, 12), torch.zeros(1, 12, 4), torch.ones(1, 12), [4])
assemble_kernels(hidden, torch.ones(6, 4), torch.zeros(6), torch.ones(1), sizes=[2],
                 channels=[(2, 3)])
torch.cuda.get_device_capability = lambda device: (9, 0)
assert forms._triton("gru", torch.device("cuda", 0)) is None  # and so PyTorch runs there too
"""


def test_without_triton_it_works_and_says_nothing():
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TRITON]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(("capability", "has"), [((6, 1), False), ((7, 0), True), ((9, 0), True)])
def test_gpus_for_which_the_programs_are_compiled_take_them(capability, has, monkeypatch):
    pytest.importorskip("triton", reason="Triton has no wheel for this platform")
    from effconv_kernels.triton import gru as programs

    dispatch._triton.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(programs, "try_out", lambda device: None)
    assert (dispatch._triton("gru", torch.device("cuda", 0)) is not None) == has
    dispatch._triton.cache_clear()


def test_cpu_tensors_and_long_ones_take_pytorch():
    assert dispatch.form_of("gru", torch.zeros(1), 64) is eager
    assert dispatch.form_of("assemble", torch.zeros(1, dtype=torch.float64), 64) is eager


class Stream:
    def __init__(self):
        self.waited = []

    def wait_event(self, event):
        self.waited.append(event)


class Values:
    """Stands in for a tensor on a GPU."""

    device = torch.device("cuda", 0)

    def __init__(self):
        self.recorded = []

    def record_stream(self, stream):
        self.recorded.append(stream)

    def data_ptr(self):
        return id(self)


@pytest.mark.parametrize("capturing", [False, True])
def test_a_table_is_waited_for_on_another_stream_and_kept_for_a_graph(capturing, monkeypatch):
    copying, other, values = Stream(), Stream(), Values()
    table = device_tables.Table(values, copying, "copied")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(device_tables, "_captured", {})
    for stream in (copying, other):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device, stream=stream: stream)
        assert device_tables.ready(table) is values
    assert copying.waited == []
    # A capture cannot wait for what was begun before it, and begins with a synchronisation.
    assert other.waited == ([] if capturing else ["copied"])
    assert values.recorded == ([] if capturing else [other])
    assert list(device_tables._captured.values()) == ([values] if capturing else [])


def test_a_table_that_is_new_in_a_capture_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="with the same sizes once before"):
        device_tables.on_device([1, 2], torch.device("cuda", 0))
