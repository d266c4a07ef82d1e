"""Whatever a file holds, reading it ends with a result or one sentence, soon, in little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "hostile_program.py"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder in which the program keeps what it mutates."""
    return tmp_path_factory.mktemp("hostile")


def run(folder, seed, count):
    """Work through mutated files in another process; return what went wrong, and the end."""
    process = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), str(seed), str(count)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    *wrong, end = [json.loads(x) for x in process.stdout.splitlines() if x.startswith("{")]
    assert end["cases"] == count
    return wrong


def test_some_mutated_files(base):
    assert not run(base, 0, 60)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_two_thousand_mutated_files(base, seed):
    assert not run(base, seed, 500)


def test_a_case_that_ends_otherwise_is_seen(base):
    """Let the program meet a reader that does what it must not."""
    broken = PROGRAM.read_text(encoding="utf-8").replace(
        '    lambda: call(SizePlan.load, "plan.json"),\n',
        "    lambda: call(SIZE, 'plan.json'),\n" * 40,
    )
    assert broken.count("SIZE") == 40
    size = 'json.loads(Path(path).read_bytes())["sizes"]["1"] + 1'
    broken = broken.replace("PLAN = [", f"SIZE = lambda path: {size}  # noqa: E731\nPLAN = [")
    program = base / "broken_program.py"
    program.write_text(broken, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, str(program), str(base), "0", "12"],
        capture_output=True,
        text=True,
        check=True,
        cwd=base,
    )
    *wrong, _ = [json.loads(x) for x in process.stdout.splitlines() if x.startswith("{")]
    assert {"plan.json"} == {case["file"] for case in wrong}
