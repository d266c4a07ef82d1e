"""A search takes no more memory in its last steps than in its first."""

import json
import statistics
import subprocess
import sys

import pytest

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")

# Bytes after each step of two epochs: of the process, and of the tensors that Python has. Each
# search has a process of its own, forked where torch is imported.
PROGRAM = """
import gc, json, os, resource, sys
from pathlib import Path
import torch
import torch._dynamo  # which optimizers import at their first step
from effconv_core import recipe, search
from tools.presets import demo_network

torch.set_num_threads(1)
STEPS, kept = 30, []
for words in sys.argv[1:]:
    process = os.fork()
    if not process:
        break
    assert os.waitpid(process, 0)[1] == 0
else:
    sys.exit()
what, name = words.split()
LEAKS = what == "leaks"

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
config = recipe(name, epochs=2, least_steps=0, finalists=1)
search(model, Loader(), budget=10_684, config=config, on_step=look)
print(json.dumps({"resident": resident, "tensors": tensors}))
"""


SEARCHES = ("flat default", "flat paper", "leaks default")


@pytest.fixture(scope="module")
def taken():
    """Give the bytes that the last 30 steps take more than the first, resident and in tensors."""
    command = [sys.executable, "-c", PROGRAM, *SEARCHES]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    more = {}
    for search, line in zip(SEARCHES, out.splitlines(), strict=True):
        taken = json.loads(line)
        assert len(taken["resident"]) == 60
        assert len(taken["tensors"]) == 6
        first, last = taken["resident"][:30], taken["resident"][-30:]
        resident = statistics.median(last) - statistics.median(first)
        tensors = statistics.median(taken["tensors"][-3:]) - statistics.median(taken["tensors"][:3])
        more[search] = resident, tensors
    return more


@linux
@pytest.mark.parametrize("search", SEARCHES[:2])
def test_memory_of_two_epochs_is_flat(search, taken):
    resident, tensors = taken[search]
    assert tensors == 0
    assert resident < 8 << 20  # graphs kept would take far more


@linux
def test_what_a_step_would_keep_is_seen(taken):
    resident, tensors = taken["leaks default"]
    assert tensors == 30 * 4
    assert resident > 16 << 20
