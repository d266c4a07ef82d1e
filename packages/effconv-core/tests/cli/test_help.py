"""What the command `effconv` shows: help that fits, completions, progress, and its own rows."""

import os
import pty
import re
import threading

import pytest
import torch
from effconv_core.cli import main
from effconv_core.engine.train import TrainStep
from effconv_core.io.progress_bar import progress_bar
from effconv_core.runs.progress import step_meter
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
