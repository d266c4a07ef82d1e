"""Every Triton program compiles ahead of time, so that no error waits for somebody with a GPU."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this platform")


def programs():
    """Names of the programs that are launched, and not only called by others."""
    from effconv_kernels.triton import assemble, gru

    return {
        f"{module.__name__.rsplit('.', 1)[1]}.{name}"
        for module in (gru, assemble)
        for name in vars(module)
        if f" {name}[(" in inspect.getsource(module)
        or f" {name}[grid]" in inspect.getsource(module)
    }


SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes that the threads of a program may share; with more a launch fails."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "sizes"),
    [
        (80, "3"),
        (90, "5"),
        *(pytest.param(card, "3 5 7 9", marks=pytest.mark.long) for card in SHARED),
    ],
)
def test_every_launch_compiles_and_fits_the_chip(architecture, sizes, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    script = Path(__file__).parent / "compile_launches.py"
    command = [sys.executable, script, str(architecture), tmp_path, *sizes.split()]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    launches = [json.loads(line) for line in result.stdout.splitlines()]
    assert {launch["name"] for launch in launches} == programs()
    assert not [launch for launch in launches if launch["stack"]]  # all of it is in registers
    assert not [launch for launch in launches if launch["shared"] > SHARED[architecture]]
    # Short tensors are summed in float32, and float32 is cut to TF32 where that is asked for alone.
    for launch in launches:
        asked = launch["launch"][1].get("PRECISION", "ieee") != "ieee"
        assert bool(launch["short"]) == asked, launch
