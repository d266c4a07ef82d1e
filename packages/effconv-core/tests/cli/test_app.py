"""Which function a subcommand calls, and what is no subcommand."""

import pytest
from effconv_core.cli import app
from effconv_core.version import core_version


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_without_a_command_there_is_help(words, capsys):
    assert app.run(words) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in app.COMMANDS)


def test_the_version_is_the_packages(capsys):
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"effconv {core_version()}\n"


@pytest.mark.parametrize("name", app.COMMANDS)
def test_every_command_is_a_function_and_its_help_names_it(name, capsys):
    with pytest.raises(SystemExit) as ended:
        app.run([name, "--help"])
    assert ended.value.code in (0, None)
    assert f"effconv {name}" in capsys.readouterr().out


def test_what_follows_the_name_goes_to_the_command(monkeypatch):
    monkeypatch.setitem(app.COMMANDS, "sum", "builtins:sorted")
    assert app.run(["sum", "b", "a"]) == ["a", "b"]


@pytest.mark.parametrize("name", ["serach", "", "--verbose", "Search"])
def test_another_word_is_refused_with_all_commands(name, capsys):
    assert app.run([name]) == 2
    error = capsys.readouterr().err
    assert repr(name) in error
    assert all(command in error for command in app.COMMANDS)


def test_a_command_that_a_package_brings_is_called(monkeypatch):
    monkeypatch.setattr(app, "brought", lambda group: {"more": group})
    monkeypatch.setattr(app, "loaded", lambda entry: lambda words: (entry, words))
    assert app.run(["more", "a"]) == ("effconv.commands", ["a"])


def test_data_names_the_package_that_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(app, "brought", lambda group: {})
    assert app.run(["data", "show"]) == 2
    assert "effconv-data" in capsys.readouterr().err
