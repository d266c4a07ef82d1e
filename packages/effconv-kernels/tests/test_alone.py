"""The package where Triton is missing."""

import subprocess
import sys

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
