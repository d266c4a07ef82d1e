"""The console of commands: plain text, and no end where nobody reads."""

import errno
import io
import sys
from dataclasses import dataclass

import pytest
from effconv_core.io.console import PlainConsole, parsed
from rich.table import Table

BAD = "a\x1b[2J\x1b]0;owned\x07\r\n[red]:smile:\u202e"


def test_a_table_takes_text_as_it_is(capsys):
    table = Table(BAD, title=BAD, caption=BAD)
    table.add_row(BAD)
    console = PlainConsole()
    console.width = 200
    console.print(table)
    out = capsys.readouterr().out
    assert out.count(r"a\x1b[2J\x1b]0;owned\x07\r\n[red]:smile:\u202e") == 4


class Gone(io.StringIO):
    """An output whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "gone")


@pytest.mark.parametrize("stderr", [False, True])
def test_where_nobody_reads_it_goes_on_in_silence(stderr, monkeypatch):
    console = PlainConsole(stderr=stderr)
    monkeypatch.setattr("effconv_core.io.console.silence", lambda output: None)
    monkeypatch.setattr(sys, "stderr" if stderr else "stdout", Gone())
    console.print("nobody reads this")
    assert console.quiet
    console.print("nor this")


def test_a_console_writes_where_it_is_told_to(capsys):
    PlainConsole(stderr=True).print("an error")
    PlainConsole(quiet=True).print("nothing")
    PlainConsole().print("a result")
    assert capsys.readouterr() == ("a result\n", "an error\n")


@dataclass
class Words:
    number: int = 3
    name: str = "a"


def test_words_become_options():
    assert parsed(Words, ["--number", "5"], prog="it") == Words(5, "a")
    assert parsed(Words, []) == Words()


@pytest.mark.parametrize(
    "words", [["--number", "\x1b[2J"], ["--\x1b[2J"], ["--number"], ["\u202e"]]
)
def test_words_that_are_not_understood_are_told_as_text(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(Words, words, prog="it")
    assert ended.value.code == 2
    out, error = capsys.readouterr()
    assert error.strip()
    assert all(c.isprintable() or c == "\n" for c in out + error)
