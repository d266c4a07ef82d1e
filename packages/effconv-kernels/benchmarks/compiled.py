"""Compile every Triton program for all cards, and note the most that one takes; nothing runs.

`python packages/effconv-kernels/benchmarks/compiled.py`, in a clone where effconv-kernels is
installed with Triton, writes `results/kernels/compiled.jsonl`: a row for each card, and for sm_90
by each older version of Triton, which pip brings into a folder that is then removed. What has a
row of this commit is not compiled again.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
OUT = HERE.parents[2] / "results" / "kernels" / "compiled.jsonl"
CARDS = (70, 75, 80, 86, 89, 90, 100, 120)
VERSIONS = ("3.2.0", "3.3.1", "3.4.0", "3.5.1", "3.6.0")
SOURCES = ("src", "tests/compile_launches.py")


def row(card: int, triton: str) -> dict[str, object]:
    """Compile for a card by a version of Triton; return the most registers and bytes of any.

    `stack` is what a thread spills, `shared` what the threads of a program share.
    """
    with TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        environment |= {"TRITON_DEFAULT_FP_FUSION": "1"}
        if triton != version("triton"):
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
            subprocess.run([*pip, folder, f"triton=={triton}"], check=True)
            paths = folder, environment.get("PYTHONPATH")
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        command = [sys.executable, HERE.parent / "tests" / "compile_launches.py", str(card)]
        found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    programs = [json.loads(line) for line in found.splitlines()]
    most = {key: max(it[key] for it in programs) for key in ("registers", "stack", "shared")}
    return {"card": card, "triton": triton, "programs": len(programs), **most}


def main() -> None:
    """Write the rows that are missing."""
    command = ["git", "status", "--porcelain", "--", *SOURCES]
    if changed := subprocess.check_output(command, cwd=HERE.parent, text=True):
        sys.exit(f"what would be compiled differs from the commit; commit it before:\n{changed}")
    command = ["git", "log", "-1", "--format=%h", "--abbrev=12", "--", *SOURCES]
    commit = subprocess.check_output(command, cwd=HERE.parent, text=True).strip()
    rows = map(json.loads, OUT.read_text().splitlines() if OUT.exists() else [])
    rows = [known for known in rows if known["commit"] == commit]
    done = {(known["card"], known["triton"]) for known in rows}
    wanted = [(card, version("triton")) for card in CARDS] + [(90, older) for older in VERSIONS]
    for card, triton in wanted:
        if (card, triton) not in done:
            rows.append(row(card, triton) | {"torch": version("torch"), "commit": commit})
            OUT.write_text("".join(json.dumps(known) + "\n" for known in rows))
            print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
