"""Rows of independent jobs: none is lost, none made twice."""

import json
from dataclasses import asdict

import pytest
from effconv_core import recipe
from rich.console import Console

from tools.support.rows import changed_since, current_rows, matches, read_rows, run_grid, run_jobs


def square(number):
    if number < 0:
        raise ValueError(f"{number} is negative")
    return {"number": number, "square": number * number}


def test_jobs_append_their_rows_after_those_that_are_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"number": 1, "square": 1}\n{"number": 2, "squ')  # cut off by a kill
    assert read_rows(path) == [{"number": 1, "square": 1}]
    run_jobs(Console(quiet=True), "squares", square, [(path, (n,)) for n in (2, 3)], 2)
    rows = sorted(read_rows(path), key=lambda row: row["number"])
    assert rows == [{"number": n, "square": n * n} for n in (1, 2, 3)]


def test_rows_made_with_other_settings_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"recipe": "paper", "seed": 3, "config": asdict(recipe("paper", seed=3))}]
    rows += [{"recipe": "TPE", "seed": 3}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert current_rows(path, "recipe", {"paper": recipe("paper")}) == rows
    with pytest.raises(ValueError, match="a row of 'paper' made with another epochs; delete"):
        current_rows(path, "recipe", {"paper": recipe("paper", epochs=3)})


def test_a_failing_job_is_raised_and_loses_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"number": 4, "square": 16}\n')
    with pytest.raises(ValueError, match="-1 is negative"):
        run_jobs(Console(quiet=True), "squares", square, [(path, (-1,)), (path, (5,))], 1)
    assert {"number": 4, "square": 16} in read_rows(path)


def test_a_grid_runs_what_its_files_lack(tmp_path):
    path, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    path.write_text('{"number": 1, "train": {"epochs": 2, "lr": 0.1}, "square": "kept"}\n')
    grid = [
        (place, {"number": n, **more}, (n,))
        for place, n, more in (
            (path, 1, {"train": {"epochs": 2}}),  # there
            (path, 2, {}),
            (path, 1, {"train": {"epochs": 3}}),  # of another training
            (other, 1, {}),  # in another file
        )
    ]
    run_grid(Console(quiet=True), "squares", square, grid, 1)
    assert sorted((r["number"], str(r["square"])) for r in read_rows(path)) == [
        *[(1, "1"), (1, "kept"), (2, "4")],
    ]
    assert read_rows(other) == [{"number": 1, "square": 1}]


def test_a_row_matches_a_key_whose_entries_it_has():
    row = {"seed": 0, "pictures": None, "train": {"epochs": 2}}
    assert matches(row, {"pictures": None, "train": {"epochs": 2}})
    assert not matches(row, {"limit": None})
    assert not matches(row, {"seed": {"a": 0}})
    assert not matches(row, {"train": {"epochs": 2, "lr": 1}})


def test_settings_that_came_later_do_not_count():
    before = {"seeds": [1, 2], "train": {"lr": 0.1}, "gone": 1}
    assert changed_since(before, {"seeds": (1, 2), "train": {"lr": 0.1, "new": 1}, "gone": 1}) == []
    now = {"seeds": (1, 3), "train": {"lr": 0.2}, "later": 5}
    assert changed_since(before, now) == ["seeds", "train", "gone"]


def test_rows_from_when_all_layers_had_one_b_are_current(tmp_path):
    path, rows = tmp_path / "rows.jsonl", [{"recipe": "paper", "config": {"b": -0.35, "k": 3}}]
    path.write_text(json.dumps(rows[0]) + "\n")
    assert current_rows(path, "recipe", {"paper": recipe("paper")}) == rows
    with pytest.raises(ValueError, match="another b"):
        current_rows(path, "recipe", {"paper": recipe("paper", b=0.1)})
