"""Lists of runs: what they hold, how one run is done, and how all stand."""

import io
import json

import pytest
import torch
import torch._dynamo
from effconv_core.runs.lock import claim
from effconv_core.runs.owner import LOCK, MARKER, mark
from effconv_core.runs.reader import read_result
from rich.console import Console

from tests.toy_runs import check, counting, trace
from tools.queue import run_list
from tools.queue.run_list import (
    FAILED,
    Run,
    end,
    fail,
    failure,
    read_list,
    state,
    work,
    write_list,
)


def quiet():
    return Console(file=io.StringIO())


def test_a_list_is_read_as_it_was_written(tmp_path):
    runs = [*counting(2), Run("sum", "a:b", {"names": ["run0"]}, ("run0", "run1"))]
    write_list(tmp_path / "list.json", runs)
    assert read_list(tmp_path / "list.json") == runs


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ([Run("a", "b:c"), Run("a", "b:c")], "2 runs of 1 names"),
        ([Run("a", "b:c", {}, ("z",))], "need z, which it lacks"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(runs, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        write_list(tmp_path / "list.json", runs)
    assert not (tmp_path / "list.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        "{}",
        "[" * 100_000,
        '[{"name": "../x", "function": "a:b"}]',
        '[{"name": ".", "function": "a:b"}]',
        '[{"name": "x", "function": "a:b", "needs": ["a/b"]}]',
        '[{"name": "x", "function": "a:b", "arguments": 1}]',
        f'[{{"name": "x", "function": "a:b", "arguments": {{"seed": 1{"0" * 400}}}}}]',
    ],
)
def test_what_is_no_list_is_refused_with_its_name(content, tmp_path):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(ValueError, match=r"list\.json"):
        read_list(tmp_path / "list.json")


def test_a_run_is_done_once(tmp_path):
    (run,) = counting(1, seconds=0)
    console = quiet()
    assert work(tmp_path / "run0", run, console) is None
    assert work(tmp_path / "run0", run, console) is None
    check(tmp_path, [run])
    assert console.file.getvalue().count("run0") == 1


def test_an_interrupted_run_goes_on_and_says_so(tmp_path):
    (run,), console = counting(1, seconds=0), quiet()
    mark(tmp_path / "run0")
    (tmp_path / "run0" / "done").write_text("5")
    assert work(tmp_path / "run0", run, console) is None
    assert [step for _, step in trace(tmp_path / "run0")] == list(range(5, 12))
    assert "goes on" in console.file.getvalue()


def test_a_run_that_another_holds_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(run_list, "PATIENCE", 0.1)
    (run,), folder = counting(1), tmp_path / "run0"
    with claim(folder):
        assert "run0 is held by process" in work(folder, run, quiet())
        assert {path.name for path in folder.iterdir()} == {LOCK, MARKER}
    # What ended in the meantime is not done again.
    fail(folder, "no")
    assert work(folder, run, quiet()) is None
    assert end(folder) == "failed"


def test_every_run_of_a_long_list_is_compiled(tmp_path):
    number = torch._dynamo.config.recompile_limit + 2
    runs = [Run(f"run{i}", "tests.toy_runs:compiles", {"size": 2 + i}) for i in range(number)]
    for run in runs:
        work(tmp_path / run.name, run, quiet())
    assert [read_result(tmp_path / run.name) for run in runs] == [{"graphs": 1}] * number


def test_how_runs_stand(tmp_path):
    path, runs = tmp_path / "list.json", counting(6, seconds=0)
    assert [state(path, run) for run in runs] == ["waiting"] * 6
    work(tmp_path / "run0", runs[0], quiet())
    fail(tmp_path / "run1", "ValueError: too hot")
    for number in (2, 3):
        (tmp_path / f"run{number}").mkdir()
    (tmp_path / "run2" / "config.json").touch()
    (tmp_path / "run3" / LOCK).write_text("[1]")  # as a process leaves that is killed at once
    with claim(tmp_path / "run4"):
        stands = ["finished", "failed", "interrupted", "interrupted", "held", "waiting"]
        assert [state(path, run) for run in runs] == stands
    assert failure(path, runs[1]) == "ValueError: too hot"
    assert (tmp_path / "run3" / LOCK).read_text() == "[1]"
    assert not (tmp_path / "run5").exists()


def test_any_error_can_be_kept_and_a_damaged_one_is_told(tmp_path):
    (run,), path = counting(1), tmp_path / "list.json"
    fail(tmp_path / "run0", "no such file: \udcff.png \x1b[2J", "trace \ud800")
    assert failure(path, run).startswith("no such file: ")
    for content in ("[1]", '{"error": 3}', ""):
        (tmp_path / "run0" / FAILED).write_text(content)
        with pytest.raises(ValueError, match="failed.json"):
            failure(path, run)


def test_failed_runs_of_a_list_get_another_chance_and_finished_ones_stay(tmp_path):
    runs = counting(2, seconds=0)
    work(tmp_path / "run0", runs[0], quiet())
    fail(tmp_path / "run1", "no")
    write_list(tmp_path / "list.json", runs)
    assert [end(tmp_path / run.name) for run in runs] == ["finished", None]
    assert json.loads((tmp_path / "list.json").read_text())[0]["name"] == "run0"
