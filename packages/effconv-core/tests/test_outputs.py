"""What commands print: never more than text, never before it is saved, never what ends a run."""

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from effconv_core import SizePlan
from effconv_core.cli import main
from effconv_core.io.console import PlainConsole

PROGRAM = Path(__file__).parent / "hostile_program.py"
WORDS = [sys.executable, "-m", "effconv_core.cli", "search", "hostile_program:network"]
WORDS += ["hostile_program:loaders", "--device=cpu", "--budget=76", "--search.epochs=1"]
WORDS += ["--search.least-steps=0"]
WORDS += ["--search.finalists=1", "--train.epochs=1", "--train.batch-size=4", "--batch-size=4"]
WORDS += ["--runs=.", "--name=run"]
# How the shell leads the output of a command.
OUTPUTS = {
    "as it is": "{}",
    "ASCII": "PYTHONIOENCODING=ascii {}",
    "ASCII, in a file": "PYTHONIOENCODING=ascii {} > out.txt",
    "a full disk": "{} > /dev/full",
    "closed": "{} >&-",
    "both closed": "{} >&- 2>&-",
    "a reader that goes": "{} | head -1; exit ${{PIPESTATUS[0]}}",
    "a reader that has gone": "{} | true; exit ${{PIPESTATUS[0]}}",
    "errors without a reader": "{} 2>&1 >/dev/null | true; exit ${{PIPESTATUS[0]}}",
    "neither with a reader": "{} 2>&1 | true; exit ${{PIPESTATUS[0]}}",
}


def shell(line, folder):
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, cwd=folder, timeout=300
    )


# What the others have, too, or `tests/whole/test_effconv_command.py`.
LESS = {"as it is", "ASCII, in a file", "closed", "a reader that goes"}
LESS |= {"a reader that has gone", "errors without a reader"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "output", [pytest.param(name, marks=[pytest.mark.long] * (name in LESS)) for name in OUTPUTS]
)
def test_no_output_ends_a_run(output, tmp_path):
    shutil.copy(PROGRAM, tmp_path)
    process = shell(OUTPUTS[output].format(shlex.join(WORDS)), tmp_path)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert "BrokenPipe" not in process.stderr
    plan = SizePlan.load(tmp_path / "run" / "plan.json")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["sizes"] == dict(plan)
    whole = {"report.md", "report.html", "cnn.safetensors", "sizes.png", "metrics.jsonl"}
    assert whole <= {path.name for path in (tmp_path / "run").iterdir()}
    if output == "ASCII":
        assert r"\u2192" in process.stdout  # the arrow of the table


@pytest.mark.parametrize(
    ("words", "output"),
    [
        *(("plan show plan.json", name) for name in ("ASCII", "closed")),
        ("plan show plan.json --json", "a reader that has gone"),
        *(
            pytest.param(words, output, marks=pytest.mark.long)
            for words, output in (
                ("plan show plan.json", "a reader that has gone"),
                ("plan show plan.json --json", "ASCII"),
                ("--help", "closed"),
            )
        ),
    ],
)
def test_no_output_of_a_short_command_is_a_traceback(words, output, tmp_path):
    SizePlan({f"layer→{i}": 3 for i in range(500)}).save(tmp_path / "plan.json")
    command = f"{sys.executable} -m effconv_core.cli {words}"
    process = shell(OUTPUTS[output].format(command), tmp_path)
    assert process.returncode == 0
    assert not process.stderr


class BrokenConsole(PlainConsole):
    """A console at whose word there is a look at what has been saved."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def print(self, *objects, **options):
        self.look(objects)


def test_a_search_shows_nothing_before_it_is_saved(tmp_path, monkeypatch):
    shutil.copy(PROGRAM, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder, seen = tmp_path / "run", []

    def look(objects):
        text = objects[0] if isinstance(objects[0], str) else "the table"
        if text == "the table" or text.startswith("plan "):
            seen.append("plan")
            assert SizePlan.load(folder / "plan.json")
        if "test accuracy" in text or "written after" in text:
            seen.append("accuracy")
            assert (folder / "result.json").exists()
            assert (folder / "report.html").exists()
        if "epoch" in text and "accuracy" in text and "test" not in text:
            seen.append("epoch")
            rows = (folder / "metrics.jsonl").read_text().splitlines()
            assert text.startswith(json.loads(rows[-1])["phase"])
            assert "seconds" in json.loads(rows[-1])

    monkeypatch.setattr(
        "effconv_core.cli.search_train.PlainConsole", lambda **options: BrokenConsole(look)
    )
    assert main(WORDS[3:]) == 0
    assert {"plan", "accuracy", "epoch"} == set(seen)
    sys.modules.pop("hostile_program", None)


BAD = "a\x1b[2J\x1b]0;owned\x07\r\n[red]:smile:\u202e"


def test_what_comes_from_files_and_arguments_is_shown_and_not_sent(tmp_path, capsys):
    bad = tmp_path / "a\x1b[2J.json"
    SizePlan({BAD: 3}, {BAD: 4.5}, model=BAD, versions={BAD: BAD}).save(bad)
    SizePlan({BAD: 4}).save(tmp_path / "b.json")
    for words in (
        ["plan", "show", str(bad)],
        ["plan", "diff", str(bad), str(tmp_path / "b.json")],
        ["plan", "show", str(tmp_path / "\x1b[2J")],
        ["plan", "apply", str(bad), "--model", "torch:\x1b[2J", "--out", str(tmp_path / "o")],
        ["report", str(tmp_path / "\x1b[2J")],
        ["\x1b[2J"],
        ["plan", "\x1b[2J"],
        ["plan", "show", "x", "--\x1b[2J"],
        ["search", "a", "b", "--budget=1", "--\x1b[2J"],
    ):
        with contextlib.suppress(SystemExit):
            main(words)
        out, errors = capsys.readouterr()
        text = out + errors
        assert text.strip()
        assert all(c.isprintable() or c == "\n" for c in text), (words, text)
        assert "☺" not in text
        assert "\x1b" not in text
    (tmp_path / "b.json").write_text(json.dumps({"schema": 2, "sizes": {BAD: 0}}))
    assert main(["plan", "show", str(tmp_path / "b.json")]) == 2
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    assert errors.strip().isprintable()
