"""Errors, signals and devices of a command: a sentence and an exit status."""

import errno
import re
import signal
from contextlib import nullcontext

import pytest
import torch
from effconv_core.cli.errors import StoppedError, check_device, os_sentence, run_command
from effconv_core.engine.loader import read_before


def test_a_sentence_of_a_command_is_one_line_of_bounded_length(capsys):
    def fail():
        raise ValueError("first\n\tsecond\r\n" + "\x1b[2J" + "x" * 100_000)

    assert run_command("name\x1b[2J", fail) == 2
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 1
    assert errors.startswith(r"name\x1b[2J: first second \x1b[2J")
    assert len(errors) < 5000


def ended(capsys, error):
    """The status and the sentence of a command that raises."""

    def fail():
        raise error

    return run_command("it", fail), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "named"),
    [
        (ValueError("k is 0"), 2, "k is 0"),
        (TypeError("k is 'a'"), 2, "k is 'a'"),
        (FloatingPointError("loss nan"), 3, "loss nan"),
        (FileNotFoundError(errno.ENOENT, "none", "a.json"), 2, "a.json"),
        (OSError(errno.ENOSPC, "full", "b.json"), 2, "b.json"),
        (StoppedError(signal.SIGTERM), 143, "SIGTERM"),
        (StoppedError(signal.SIGINT), 130, "SIGINT"),
    ],
)
def test_an_error_has_a_status_and_one_sentence(error, status, named, capsys):
    found, sentence = ended(capsys, error)
    assert found == status
    assert named in sentence
    assert len(sentence.splitlines()) == 1


def test_an_error_that_nobody_has_foreseen_comes_through():
    def fail():
        raise KeyError("it")

    with pytest.raises(KeyError):
        run_command("it", fail)


@pytest.mark.parametrize("given", [None, 0, 1, 5])
def test_a_command_that_ends_has_its_own_status(given, capsys):
    assert run_command("it", lambda: given) == (given or 0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("told_by", [False, True])
def test_the_line_of_the_users_own_code_is_named(told_by, capsys, tmp_path):
    path = tmp_path / "model.py"
    path.write_text("def build():\n    raise ValueError('no such width')\n")
    space = {"__name__": "model"}
    exec(compile(path.read_text(), str(path), "exec"), space)

    def build():
        with read_before("the model") if told_by else nullcontext():
            space["build"]()

    assert run_command("it", build) == 2
    error = capsys.readouterr().err
    assert f"{path}, line 2" in error.replace("\n", " ")


def test_what_a_stop_interrupted_does_not_hide_it(capsys):
    def fail():
        try:
            raise StoppedError(signal.SIGTERM)
        finally:
            raise OSError(errno.EIO, "gone")

    assert run_command("it", fail) == 143
    assert "SIGTERM" in capsys.readouterr().err


@pytest.fixture
def handlers():
    """Set Python's own handlers for a test, since the shell may have others set to be ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):
        usual[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield usual
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_stops_in_order(name, handlers, capsys):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"the system has no {name}")
    assert run_command("it", lambda: signal.raise_signal(number)) == 128 + number
    assert name in capsys.readouterr().err


def test_the_handlers_of_signals_are_as_before(handlers):
    assert run_command("it", lambda: 0) == 0
    assert {number: signal.getsignal(number) for number in handlers} == handlers


def test_an_error_of_the_system_names_file_and_remedy():
    full = os_sentence(OSError(errno.ENOSPC, "No space left", "runs/a"))
    locked = os_sentence(OSError(errno.EACCES, "Permission denied", "runs/a"))
    assert full != locked.replace("Permission denied", "No space left")
    assert "runs/a" in full
    assert "runs/a" in locked
    assert os_sentence(OSError("of no number")) == "of no number"
    for number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
        sentence = os_sentence(OSError(number, "why", "b"))
        assert sentence.startswith("b: why; pass ")
        ours = OSError(number, "why; do that", "b")
        assert os_sentence(ours) == "b: why; do that"


@pytest.mark.parametrize("device", ["cpu", "cpu:0", "meta"])
def test_a_device_that_there_is_is_taken(device):
    check_device(device)


@pytest.mark.parametrize("device", ["gpu", "", "cpu:x"])
def test_a_device_that_pytorch_does_not_know_is_refused(device):
    with pytest.raises(ValueError, match=re.escape(repr(device))):
        check_device(device)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda'"):
        check_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(ValueError, match="cuda:1"):
        check_device("cuda:2")
