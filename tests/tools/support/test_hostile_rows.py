"""Rows that tools keep: nothing that somebody wrote among them is a traceback, or is lost."""

from dataclasses import dataclass

import pytest

from tools.support.rows import append_row, current_rows, read_rows, run_jobs


@dataclass
class Settings:
    epochs: int = 1


ODD = ["[" * 100_000, "[1]", "{", '{"a": ' + "1" * 400 + "}", '{"a": "\\ud800"}', "7"]


@pytest.mark.parametrize("line", ODD)
def test_a_line_that_is_no_row_is_named(line, tmp_path):
    path = tmp_path / "rows.jsonl"
    append_row(path, {"a": float("nan")})
    path.write_text(path.read_text() + line + "\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2"):
        read_rows(path)
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2"):
        run_jobs(None, "jobs", dict, [(path, ())], 1)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "row", [{"config": [1]}, {"config": {"epochs": 1}}, {"name": "b", "config": {"epochs": 1}}]
)
def test_settings_that_nothing_has_are_named(row, tmp_path):
    path = tmp_path / "rows.jsonl"
    append_row(path, {"name": "a", "config": {"epochs": 1}})
    assert current_rows(path, "name", {"a": Settings()})
    append_row(path, row)
    with pytest.raises(ValueError, match=r"rows\.jsonl"):
        current_rows(path, "name", {"a": Settings()})


def test_a_row_is_appended_to_no_link(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "rows.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):  # noqa: PT011
        append_row(tmp_path / "rows.jsonl", {"a": 1})
    assert (tmp_path / "victim").read_text() == "precious"
