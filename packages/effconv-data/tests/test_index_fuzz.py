"""Mutated indexes and progress files: each ends in a result or in one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz_program.py")
MEGABYTES = 500


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
@pytest.mark.parametrize(
    ("seed", "cases"), [(0, 150), pytest.param(1, 2000, marks=pytest.mark.long)]
)
def test_every_mutation_ends_in_a_result_or_a_sentence(seed, cases, tmp_path):
    command = [sys.executable, str(PROGRAM), str(seed), str(cases), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["memory"] < MEGABYTES
    ends = found["ends"]
    # Not all alike: some mutations change nothing that matters, and most are refused.
    for end in ("verify 0", "verify 2", "show 0", "show 2", "load read", "load refused"):
        assert ends[end] > cases // 100, ends
    assert ends["prepare 0"] > cases // 10, ends
    assert ends["prepare 2"] > cases // 10, ends
