"""A closed terminal: the run ends in order, or goes on where it was told to."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP"),
]

# It says when it has begun, works until it is stopped or told to end, and tidies up.
PROGRAM = """
import sys, time
from pathlib import Path
from effconv_core.cli.errors import run_command
from rich.console import Console
from rich.progress import Progress

here = Path(sys.argv[1])

def work():
    with Progress(console=Console()) as progress:
        task = progress.add_task("working", total=None)
        try:
            (here / "begun").touch()
            while not (here / "end").exists():
                progress.advance(task)
                print("at work", flush=True)
                time.sleep(0.01)
            (here / "finished").touch()
        finally:
            (here / "tidied").touch()

sys.exit(run_command("work", work))
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path), str(tmp_path)]


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.long), 3])
def test_a_hangup_ends_in_order_however_often_it_comes(program, tmp_path, times):
    process = subprocess.Popen(
        program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for(tmp_path / "begun", process)
    for _ in range(times):
        process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (129, 1)
    assert "stopped by SIGHUP; the same command goes on" in said
    assert (tmp_path / "tidied").exists()


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.long), 5])
def test_where_the_outputs_are_gone_too_it_ends_in_order(program, tmp_path, times):
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(tmp_path / "begun", process)
    process.stderr.close()
    process.stdout.close()  # so that both ends of the run's pipes are gone, as with ssh
    for _ in range(times):
        process.send_signal(signal.SIGHUP)
    assert process.wait(60) in (129, 1, 2)  # the next line may come first, and end it too
    assert (tmp_path / "tidied").exists()


def in_a_terminal(program: list[str], before: str = "") -> tuple[int, int]:
    """Start a program as the leader of a terminal; give its number and the terminal's other end."""
    number, terminal = pty.fork()
    if number == 0:
        os.execvp("sh", ["sh", "-c", f'{before} exec "$@"', "sh", *program])
    return number, terminal


def ended(number: int, seconds: float = 60) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    raise TimeoutError(f"process {number} is still at work")


def read_until(path: Path, terminal: int) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        os.read(terminal, 1 << 16)


def test_a_terminal_that_is_closed_ends_the_run_in_order(program, tmp_path):
    number, terminal = in_a_terminal(program)
    read_until(tmp_path / "begun", terminal)
    os.close(terminal)
    assert ended(number) == 129
    assert (tmp_path / "tidied").exists()
    assert not (tmp_path / "finished").exists()


@pytest.mark.parametrize("how", [pytest.param("trap '' HUP;", marks=pytest.mark.long), "nohup"])
def test_a_run_that_ignores_hangups_outlives_its_terminal(program, tmp_path, how, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["nohup", *program] if how == "nohup" else program
    number, terminal = in_a_terminal(words, "" if how == "nohup" else how)
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        if how != "nohup":  # whose output goes to a file
            os.read(terminal, 1 << 16)
        time.sleep(0.01)
    os.close(terminal)
    time.sleep(0.3)
    assert os.waitpid(number, os.WNOHANG) == (0, 0)
    (tmp_path / "end").touch()
    assert ended(number) == 0
    assert (tmp_path / "finished").exists()


def test_a_quit_stays_an_end_at_once(program, tmp_path):
    def heed_quit() -> None:  # which tests in the background of a shell are told to ignore
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)

    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(program, preexec_fn=heed_quit, **options) as process:
        wait_for(tmp_path / "begun", process)
        process.send_signal(signal.SIGQUIT)
        try:
            assert process.wait(60) == -signal.SIGQUIT
        finally:
            process.kill()
    assert not (tmp_path / "tidied").exists()
