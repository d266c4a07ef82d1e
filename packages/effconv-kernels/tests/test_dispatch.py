"""Which form of an operator runs a call."""

import importlib.util
from pathlib import Path

import pytest
import torch
from effconv_kernels import dispatch, eager, gru_unroll

spec = importlib.util.spec_from_file_location(
    "gru_inputs", Path(__file__).with_name("gru_inputs.py")
)
gru_inputs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gru_inputs)
STEPS, tensors = gru_inputs.STEPS, gru_inputs.tensors


def test_the_interpreter_runs_the_triton_form_of_a_cpu_tensor(triton_device):
    gates, weight, bias, _ = (tensor.float().to(triton_device) for tensor in tensors(3, 4))
    ours = gru_unroll(gates, weight, bias, STEPS, backend="triton")
    torch.testing.assert_close(ours, gru_unroll(gates, weight, bias, STEPS, backend="torch"))


def test_programs_that_do_not_run_are_replaced_with_one_warning(monkeypatch, recwarn):
    pytest.importorskip("triton")
    from effconv_kernels.triton import gru as programs

    def fails(device):
        raise RuntimeError("Failed to find C compiler.")

    dispatch._triton.cache_clear()
    monkeypatch.setattr(programs, "try_out", fails)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    device = torch.device("cuda", 0)
    assert [dispatch._triton("gru", device) for _ in range(3)] == [None] * 3
    dispatch._triton.cache_clear()
    found = [str(w.message) for w in recwarn if issubclass(w.category, RuntimeWarning)]
    assert len(found) == 1
    assert "Failed to find C compiler." in found[0]


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
