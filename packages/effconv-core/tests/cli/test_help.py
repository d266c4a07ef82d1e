"""What the command `effconv` shows: help that fits, completions, progress, and its own rows."""

import os
import pty
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from effconv_core.cli import main
from effconv_core.engine.train import TrainStep
from effconv_core.runs.metrics import Metrics
from effconv_core.runs.progress import progress_bar, step_meter
from rich.console import Console

COMMANDS = [
    "search",
    "train",
    "probe",
    "frontier",
    "evaluate",
    "predict",
    "export",
    "check",
    "plan",
]
COMMANDS += ["report", "list", "models", "data", "completion"]


@pytest.fixture
def effconv(capsys, monkeypatch):
    """Give the command in this process: its status, standard output and standard error."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setenv("COLUMNS", "80")

    def command(*words):
        try:
            status = main(list(words))
        except SystemExit as stop:  # of tyro
            status = stop.code
        return status, *capsys.readouterr()

    return command


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS if name != "data")])
def test_help_fits_a_screen(words, effconv):
    status, out, _ = effconv(*words, "--help")
    assert status == 0
    lines = out.splitlines()
    assert len(lines) <= (40 if words else 24), out
    assert max(map(len, lines)) <= 80
    for command in () if words else COMMANDS:
        assert f"\n  {command} " in out


def test_help_all_names_every_setting(effconv):
    _, short, _ = effconv("search", "--help")
    status, long, _ = effconv("search", "--help-all")
    assert status == 0
    assert "--help-all" in short
    for option in ("--search.epochs", "--train.weight-decay", "--sync-batchnorm"):
        assert re.search(rf"^\W *{option} ", long, re.MULTILINE)
        assert not re.search(rf"^\W *{option} ", short, re.MULTILINE)


def completions(shell_line, script, *, cwd):
    """What bash offers at the end of a line."""
    words = shell_line.split(" ")
    program = f"""
source {script}
COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
COMP_CWORD={len(words) - 1}
COMP_LINE='{shell_line}'
COMP_POINT=${{#COMP_LINE}}
function=$(complete -p effconv | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function effconv "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "--norc", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PATH": path},
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_choices_and_files(effconv, tmp_path):
    status, script, _ = effconv("completion", "bash")
    assert status == 0
    (tmp_path / "script").write_text(script)
    (tmp_path / "plan.json").touch()

    def offers(line):
        return completions(line, tmp_path / "script", cwd=tmp_path)

    commands = set(COMMANDS)
    assert commands <= offers("effconv ")
    assert offers("effconv se") == {"search"}
    assert {"show", "diff", "apply"} <= offers("effconv plan ")
    assert "folder" in offers("effconv data prepare f")
    assert offers("effconv search --budget-") == {"--budget-counts"}
    assert {"parameters", "macs"} == offers("effconv search --budget-counts ")
    assert {"bank", "paper", "literal"} == offers("effconv train --recipe ")
    assert {word[:10] for word in offers("effconv search --search.k")} == {"--search.k"}
    assert offers("effconv search --search.ep") == {"--search.epochs"}
    assert offers("effconv plan show pl") == {"plan.json"}


def test_zsh_gets_a_script_too(effconv):
    status, script, _ = effconv("completion", "zsh")
    assert status == 0
    assert "#compdef effconv" in script
    assert effconv("completion", "cmd.exe")[0] == 2


def test_version_and_an_unknown_command(effconv):
    assert re.fullmatch(r"effconv \d+\.\d+\.\d+\n", effconv("--version")[1])
    status, _, err = effconv("serach")
    assert status == 2
    assert err.count("\n") == 1
    names = set(COMMANDS)
    assert {"'serach'", *names} <= set(re.findall(r"'?\w+'?", err))


def meter_lines(file):
    with progress_bar(Console(file=file)) as progress:
        on_step = step_meter(progress, None, "train", epochs=2, steps_per_epoch=3)
        for number in range(6):
            outputs, loss = torch.eye(2), torch.tensor(0.5)
            on_step(TrainStep(number // 3, number % 3, loss, outputs, torch.arange(2)))
    file.close()


@pytest.mark.parametrize("terminal", ["xterm", "dumb", None])
def test_a_bar_is_drawn_on_a_terminal_alone(terminal, monkeypatch):
    monkeypatch.setenv("TERM", terminal or "xterm")
    reader, writer = pty.openpty() if terminal else os.pipe()
    drawing = threading.Thread(target=meter_lines, args=[os.fdopen(writer, "w")])
    drawing.start()
    shown = b""
    try:
        while part := os.read(reader, 4096):
            shown += part
    except OSError:  # so ends a terminal that nobody writes to any more
        pass
    drawing.join()
    os.close(reader)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    for epoch in (1, 2):
        assert f"train epoch {epoch}/2: loss 0.500  accuracy 100.0%" in text
    assert ("━" in text) == ("100%" in text.replace("100.0%", "")) == (terminal == "xterm")
    if terminal is None:
        assert len(text.splitlines()) == 2


def test_metrics_do_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    metrics = Metrics(tmp_path)
    metrics.log("train", 0, 1, loss=0.5)
    metrics.close()
    assert [row["loss"] for row in metrics.rows()] == [0.5]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
