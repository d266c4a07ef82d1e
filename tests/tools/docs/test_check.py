"""The check finds what the raw results do not say, and the pages are made by one command."""

import sys
from pathlib import Path

import pytest

from tools.docs import check

ROOT = Path(__file__).parents[3]
HAND = ("README.md", "docs/index.md", "packages/effconv-core/README.md", "results/README.md")


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["check", *arguments])
    return check.main()


def test_every_document_is_what_the_results_give(monkeypatch, capsys):
    assert run(monkeypatch, "--check") == 0, capsys.readouterr().out


@pytest.fixture
def written_by_hand(monkeypatch):
    """Let no page be made of results, which takes seconds."""
    monkeypatch.setattr(check, "MADE", {})


def add_a_figure(monkeypatch, place):
    read = Path.read_text

    def with_a_figure(path, *arguments, **options):
        text = read(path, *arguments, **options)
        return f"{text}\n# Another\n\nIt reaches 99.99 %.\n" if str(path) == place else text

    monkeypatch.setattr(Path, "read_text", with_a_figure)


@pytest.mark.usefixtures("written_by_hand")
@pytest.mark.parametrize("place", HAND)
def test_a_made_up_figure_fails_the_check(place, monkeypatch, capsys):
    add_a_figure(monkeypatch, place)
    assert run(monkeypatch, "--check") == 1
    assert place in capsys.readouterr().out


@pytest.mark.parametrize("name", check.MADE)
def test_so_it_does_in_a_page_that_is_made(name, monkeypatch, capsys):
    place = str(check.MADE[name][0])
    add_a_figure(monkeypatch, place)
    assert run(monkeypatch, name, "--check") == 1
    assert place in capsys.readouterr().out


@pytest.mark.usefixtures("written_by_hand")
def test_a_command_that_is_gone_fails_the_check(monkeypatch, capsys):
    read = Path.read_text

    def with_a_command(path, *arguments, **options):
        text = read(path, *arguments, **options)
        return f"{text}\n`hatch run bench:gone`\n" if str(path) == "docs/index.md" else text

    monkeypatch.setattr(Path, "read_text", with_a_command)
    assert run(monkeypatch, "--check") == 1
    assert "bench:gone" in capsys.readouterr().out


def test_one_page_is_written_and_checked_alone(monkeypatch, tmp_path):
    page = tmp_path / "versus.md"
    page.write_text("")
    monkeypatch.setitem(check.MADE, "versus", (page, check.MADE["versus"][1]))
    assert run(monkeypatch, "versus", "--check") == 1
    assert page.read_text() == ""
    assert run(monkeypatch, "versus") == 0
    assert page.read_text() == (ROOT / "docs/versus.md").read_text()
    assert run(monkeypatch, "versus", "--check") == 0


def test_a_picture_that_is_missing_fails_the_check(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(check.results_page, "PICTURES", tmp_path / "figures")
    assert run(monkeypatch, "results", "--check") == 1
    assert "figures/kernels-cpu-found" in capsys.readouterr().out


@pytest.mark.usefixtures("written_by_hand")
def test_a_front_picture_of_older_rows_fails_the_check(monkeypatch, tmp_path, capsys):
    rows = check.picture.ROWS.read_text().replace('"c2": 9', '"c2": 11')
    (tmp_path / "rows.jsonl").write_text(rows)
    monkeypatch.setattr(check.picture, "ROWS", tmp_path / "rows.jsonl")
    assert run(monkeypatch, "--check") == 1
    said = capsys.readouterr().out
    assert "README.md" in said
    assert "docs/index.md" in said
