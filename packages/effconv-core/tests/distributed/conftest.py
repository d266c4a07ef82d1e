"""Two ranks without torchrun, for all tests of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory):
    """Give a function that runs a program, and tells the statuses of its ranks and their words."""
    folder = tmp_path_factory.mktemp("two_ranks")
    with subprocess.Popen(
        [sys.executable, str(TESTS / "two_ranks.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:

        def run(name, *arguments):
            words = folder, TESTS / f"{name}.py", *arguments
            process.stdin.write(json.dumps([*map(str, words)]) + "\n")
            process.stdin.flush()
            statuses = json.loads(process.stdout.readline())
            return statuses, [(folder / f"{rank}.txt").read_text() for rank in range(2)]

        yield run
