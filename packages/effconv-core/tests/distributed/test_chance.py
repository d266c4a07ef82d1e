"""Ranks search networks whose layers run by chance, or by their own count."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "chance_program.py"


@pytest.fixture(scope="module")
def told():
    """What each of two ranks says of the plans that they have found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    setting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env={**os.environ, **setting, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ended = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], ended[0][1] + ended[1][1]
    return [dict(line.split(" ", 1) for line in out.splitlines()) for out, _ in ended]


@pytest.mark.parametrize("what", ["torch", "python", "passes", "told"])
def test_two_ranks_search_a_network_that_leaves_out_layers(what, told):
    one, other = told
    assert one[what] == other[what]
    assert "always" in one[what]
