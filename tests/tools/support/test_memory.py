"""The peak of memory is that of what is measured."""

import pytest
import torch

from tools.support.memory import PROCESS, measure_peak, peak_memory


@pytest.mark.skipif(not (PROCESS / "clear_refs").exists(), reason="the system tells no peak")
def test_what_was_freed_before_is_not_of_the_peak():
    measure_peak("cpu")
    before = peak_memory("cpu")
    # Too small for pages of their own, and one stays above the rest, so that the heap keeps them.
    blocks = [b"x" * 100_000 for _ in range(3000)]
    assert peak_memory("cpu") > before + 200
    del blocks[:-1]
    measure_peak("cpu")
    assert peak_memory("cpu") < before + 100


def test_the_peak_of_a_gpu_is_reset_once_there_is_something_to_reset(monkeypatch):
    # Where the device has a number, PyTorch does not start CUDA itself, and refuses it.
    called = []
    monkeypatch.setattr(torch.cuda, "init", lambda: called.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", called.append)
    measure_peak("cuda:1")
    assert called == ["init", "cuda:1"]
