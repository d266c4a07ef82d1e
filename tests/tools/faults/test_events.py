"""The drill at file events: it sees each, kills before it, and notices whatever is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.faults import events, page
from tools.support.rows import read_rows

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at files in /proc"),
]

# Does everything to files that is watched, and as much that is not.
PROGRAM = """
import os, sys, threading
from pathlib import Path
from effconv_core.io.atomic import append_text, remove_file, rename_file, write_text

folder = Path(sys.argv[1])
folder.mkdir()
write_text(folder / "a.json", "0123456789")
append_text(folder / "rows", "one row of text")
rename_file(folder / "a.json", folder / "b.json")
remove_file(folder / "b.json")
(folder / "rows").read_text()
write_text(folder.parent / "beside", "not in the folder")
thread = threading.Thread(target=write_text, args=(folder / "thread", "of another thread"))
thread.start()
thread.join()
"""
EVENTS = [
    ["mkdir", "."],
    ["open", "a.json (part)"],
    ["open", "a.json (part)"],
    ["chmod", "a.json (part)"],
    ["open", "a.json (part)"],
    ["write", "a.json (part)"],
    ["fsync", "a.json (part)"],
    ["rename", "a.json"],
    ["fsync", "."],
    ["open", "rows"],
    ["write", "rows"],
    ["rename", "b.json"],
    ["unlink", "b.json"],
]


def watched(folder, fatal):
    """Run the program under the watch in a process of its own; its status and events."""
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    log, place = folder / "log", str(folder / "run")
    words = [str(fatal), str(log), place, "program", place]
    code = f"import sys; from tools.faults.events import watched; sys.exit(watched({words!r}))"
    places = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": places},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not ended.stderr or ended.returncode, ended.stderr
    lines = log.read_text().splitlines() if log.exists() else []
    return ended.returncode, [json.loads(line) for line in lines]


def test_every_event_in_the_folder_is_seen_in_order(tmp_path):
    assert watched(tmp_path / "all", 0) == (0, EVENTS)


@pytest.mark.parametrize(
    ("fatal", "left"),
    [
        (1, None),
        pytest.param(2, {}, marks=pytest.mark.long),
        (6, {"a.json (part)": "01234"}),
        pytest.param(7, {"a.json (part)": "0123456789"}, marks=pytest.mark.long),
        pytest.param(8, {"a.json (part)": "0123456789"}, marks=pytest.mark.long),
        pytest.param(9, {"a.json": "0123456789"}, marks=pytest.mark.long),
        pytest.param(11, {"a.json": "0123456789", "rows": "one row"}, marks=pytest.mark.long),
        (13, {"b.json": "0123456789", "rows": "one row of text"}),
    ],
)
def test_the_process_ends_just_before_the_fatal_event(fatal, left, tmp_path):
    status, seen = watched(tmp_path / "killed", fatal)
    assert (status, seen) == (-9, EVENTS[:fatal])
    run = tmp_path / "killed" / "run"
    found = {events.RANDOM.sub(r"\1 (part)", p.name): p.read_text() for p in run.glob("*")}
    assert run.exists() == (left is not None)
    assert found == (left or {})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never killed, by recipe."""
    place = tmp_path_factory.mktemp("events")
    return {recipe: events.refer(recipe, place / recipe) for recipe in events.RECIPES}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", events.RECIPES)
def test_the_result_is_the_last_file_of_a_run_and_all_is_there(recipe, whole):
    outcome, seen = whole[recipe]
    assert outcome["result last"] == "result.json"
    renamed = [name for kind, name in seen if kind == "rename" and not name.startswith(".")]
    assert renamed.index("report.html") < renamed.index("result.json") == len(renamed) - 1
    assert {"report.html", "report.md", "plan.json", "cnn.safetensors"} <= outcome["files"].keys()
    assert 60 <= len(seen) <= 200


@pytest.mark.slow
@pytest.mark.parametrize("recipe", events.RECIPES)
@pytest.mark.parametrize(
    "event", ["config.json", "search.safetensors", "report.html", "result.json"]
)
def test_a_kill_before_a_file_appears_loses_nothing(recipe, event, whole, tmp_path):
    outcome, seen = whole[recipe]
    number = seen.index(["rename", event]) + 1
    row = events.kill_at(number, recipe, tmp_path / "drill", outcome)
    assert row["losses"] == []
    assert row["event"] == [["rename", event]]


def break_report(run):
    (run / "report.html").write_text("nothing")


def leave_a_part(run):
    (run / ".plan.json.0123456789abcdef.partial").touch()


def close_a_file(run):
    (run / "cnn.safetensors").chmod(0o600)


def write_after_the_result(run):
    (run / "report.md").write_bytes((run / "report.md").read_bytes())


def lose_a_row(run):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))


def delete_the_page(run):
    (run / "report.html").unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (break_report, "another page"),
        (delete_the_page, "report.html"),
        (leave_a_part, "files"),
        (close_a_file, "files"),
        (write_after_the_result, "result last"),
        (lose_a_row, "another metrics"),
    ],
)
def test_the_drill_notices_a_loss(damage, told, whole, tmp_path, monkeypatch):
    outcome, seen = whole["paper"]
    go = events.go

    def damaged(recipe, folder, fatal):
        ended = go(recipe, folder, fatal)
        if not fatal:
            damage(folder / "run")
        return ended

    monkeypatch.setattr(events, "go", damaged)
    row = events.kill_at(len(seen) // 2, "paper", tmp_path / "drill", outcome)
    assert any(told in sentence for sentence in row["losses"])


def test_the_raw_rows_are_of_a_committed_tree_and_lose_nothing():
    rows = read_rows(ROOT / page.EVENTS)
    if not rows:
        pytest.skip("the drill has not been run yet")
    header, *killed = rows
    assert "dirty" not in header["environment"]["commit"]
    assert header["events"].keys() == set(events.RECIPES)
    every = {(r, n + 1) for r, seen in header["events"].items() for n in range(len(seen))}
    assert {(row["recipe"], row["number"]) for row in killed} == every
    assert not any(row["losses"] for row in killed)


def test_a_drill_is_not_gone_on_with_in_another_environment(tmp_path):
    now = events.environment("cpu")
    events.check_environment({"environment": now}, tmp_path)
    with pytest.raises(ValueError, match="0.0.1"):
        events.check_environment({"environment": {**now, "torch": "0.0.1"}}, tmp_path)
