"""A search takes no more memory in its last steps than in its first."""

import json
import statistics
import subprocess
import sys

import pytest

# Bytes after each step of two epochs: of the process, and of the tensors that Python has.
PROGRAM = """
import gc, json, resource, sys
from pathlib import Path
import torch
from effconv_core import recipe, search
from tools.presets import demo_network

torch.set_num_threads(1)
STEPS, kept = 30, []
LEAKS = sys.argv[1] == "leaks"

class Loader:
    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(STEPS):
            yield torch.randn(16, 1, 24, 24, generator=generator), torch.arange(16) % 4

resident, tensors = [], []

def look(step):
    if LEAKS:
        kept.append(step.task_loss + step.soft_sizes.sum())
        kept.append(bytearray(b"x" * 1_000_000))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident.append(pages * resource.getpagesize())
    if step.step % 10 == 9:
        found = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        tensors.append(sum(t.numel() * t.element_size() for t in found))

model = demo_network(1, 4, torch.Generator().manual_seed(0))
config = recipe(sys.argv[2], epochs=2, least_steps=0, finalists=1)
search(model, Loader(), budget=10_684, config=config, on_step=look)
print(json.dumps({"resident": resident, "tensors": tensors}))
"""


def memory(what: str, recipe: str) -> tuple[float, float]:
    """Give the bytes that the last 30 steps take more than the first, resident and in tensors."""
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM, what, recipe], check=True, capture_output=True, text=True
    ).stdout
    taken = json.loads(out)
    assert len(taken["resident"]) == 60
    assert len(taken["tensors"]) == 6
    first, last = taken["resident"][:30], taken["resident"][-30:]
    resident = statistics.median(last) - statistics.median(first)
    tensors = statistics.median(taken["tensors"][-3:]) - statistics.median(taken["tensors"][:3])
    return resident, tensors


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_memory_of_two_epochs_is_flat(recipe):
    resident, tensors = memory("keeps nothing", recipe)
    assert tensors == 0
    assert resident < 8 << 20  # graphs kept would take far more


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_what_a_step_would_keep_is_seen():
    resident, tensors = memory("leaks", "default")
    assert tensors == 30 * 4
    assert resident > 16 << 20
