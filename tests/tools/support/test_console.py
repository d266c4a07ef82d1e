"""How commands begin and end, and tables."""

import io
import sys

from rich.console import Console

from tools.support.console import run_and_report, show


def printed(rows):
    console = Console(width=80, record=True, file=io.StringIO())
    show(console, "title", ("space", "seeds"), rows)
    return console.export_text()


def test_a_line_stands_between_groups_alone():
    grouped = printed([("a", 1), ("a", 2), ("b", 3)])
    assert grouped.count("├") == 1
    assert printed([("a", 1), ("b", 2)]).count("├") == 0
    assert "│ b     │     3 │" in grouped


def test_a_command_says_what_it_wrote_and_a_refusal_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["name", "--option"])

    def run(arguments, console):
        if arguments != ["--option"]:
            raise ValueError("no")
        return tmp_path

    assert run_and_report("name", run) == 0
    assert "report.html" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["name"])
    assert run_and_report("name", run) == 2
    assert capsys.readouterr().err.startswith("name: no")
