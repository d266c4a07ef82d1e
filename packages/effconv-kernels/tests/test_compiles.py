"""Every Triton program compiles ahead of time, so that no error waits for somebody with a GPU."""

import importlib.util
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


SHARED = {70: 96, 75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""KiB that the threads of a program may share on each card; with more a launch fails."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("card", "size"),
    [(90, "3"), *(pytest.param(card, None, marks=pytest.mark.long) for card in SHARED)],
)
def test_every_launch_compiles_and_fits_the_card(card, size, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    script = Path(__file__).parent / "compile_launches.py"
    command = [sys.executable, script, str(card), *([size] if size else [])]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    launches = [json.loads(line) for line in result.stdout.splitlines()]
    assert {launch["name"] for launch in launches} == programs()
    assert not [launch for launch in launches if launch["stack"]]  # all of it is in registers
    assert not [launch for launch in launches if launch["shared"] > 1024 * SHARED[card]]
    # Short tensors are summed in float32, and float32 is cut to TF32 where that is asked for alone,
    # and by cards that have it.
    for launch in launches:
        asked = card >= 80 and launch["launch"][1].get("PRECISION", "ieee") != "ieee"
        assert bool(launch["short"]) == asked, launch


def test_rows_hold_the_most_of_all_programs_and_are_made_once_a_commit(monkeypatch, tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "compiled.py"
    spec = importlib.util.spec_from_file_location("compiled", script)
    compiled = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compiled)
    programs = [
        {"registers": 40, "stack": 8, "shared": 0},
        {"registers": 255, "stack": 0, "shared": 64},
    ]
    output = "\n".join(map(json.dumps, programs)).encode()
    started = []

    def run(command, **rest):
        started.append((command[1:4], rest.get("env", {}).get("TRITON_INTERPRET")))
        return subprocess.CompletedProcess(command, 0, stdout=output)

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(compiled.subprocess, "run", run)
    monkeypatch.setattr(
        compiled.subprocess, "check_output", lambda command, **rest: "abc\n" * ("log" in command)
    )
    monkeypatch.setattr(compiled, "OUT", tmp_path / "rows.jsonl")
    monkeypatch.setattr(compiled, "CARDS", (75, 90))
    monkeypatch.setattr(compiled, "VERSIONS", ("3.2.0",))
    other = {"card": 75, "triton": compiled.version("triton"), "commit": "old"}
    compiled.OUT.write_text(json.dumps(other) + "\n")
    compiled.main()
    rows = [json.loads(line) for line in compiled.OUT.read_text().splitlines()]
    assert [(row["card"], row["triton"] == "3.2.0") for row in rows] == [
        (75, False),
        (90, False),
        (90, True),
    ]
    for row in rows:
        assert [row[key] for key in ("programs", "registers", "stack", "shared", "commit")] == [
            *(2, 255, 8, 64, "abc")
        ]
    assert [command[:2] for command, _ in started if "pip" in command] == [["-m", "pip"]]
    assert all(interpreted is None for _, interpreted in started)
    count = len(started)
    compiled.main()
    assert len(started) == count
    monkeypatch.setattr(compiled.subprocess, "check_output", lambda *_, **rest: " M src/x.py\n")
    with pytest.raises(SystemExit, match="differs from the commit"):
        compiled.main()
