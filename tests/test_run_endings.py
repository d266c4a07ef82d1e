"""A run is marked as finished when all else that it promises is there, in every command."""

import json
import shutil
from pathlib import Path

import pytest
from effconv_core.runs.owner import LOCK

from tests.small_runs import COMMANDS, effconv_search, sweep_search


def promised(folder: Path) -> set[str]:
    """Name the files of a run; of TensorBoard's there is one more for each start."""
    return {path.name for path in folder.iterdir() if path.name != LOCK}


@pytest.fixture
def killed_at(monkeypatch):
    """Return what kills a command where it gives a file its name, by the number of that."""

    class KilledError(BaseException):
        pass

    replace = Path.replace

    def run(number, command, *words):
        count = 0

        def stop(self, target):
            nonlocal count
            count += 1
            if count == number:
                raise KilledError
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stop)
            try:
                return command(*words)
            except KilledError:
                return None

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_killed_at_any_file_is_unfinished_and_ends_as_another(name, killed_at, tmp_path):
    command = COMMANDS[name]
    assert command(tmp_path, "--name=whole") == 0
    whole = promised(tmp_path / "whole")
    assert "result.json" in whole
    for number in range(1, 100):
        place = f"killed-{number}"
        if killed_at(number, command, tmp_path, f"--name={place}") == 0:
            break
        found = promised(tmp_path / place)
        assert "result.json" not in found
        assert command(tmp_path, f"--name={place}") == 0, place
        assert promised(tmp_path / place) >= whole
    assert number > 6
    # The last file of all is the one that says that it is finished.
    assert found | {"result.json"} >= whole


@pytest.mark.slow
def test_a_sweep_killed_at_any_file_ends_as_another(killed_at, tmp_path):
    for number in range(1, 100):
        folder = tmp_path / str(number)
        if killed_at(number, sweep_search, folder) == 0:
            break
        assert sweep_search(folder) == 0
        assert (folder / "results.jsonl").read_text().count("\n") == 1
    assert number > 6


def test_a_finished_run_without_its_report_gets_one_by_the_same_command(tmp_path, capsys):
    assert effconv_search(tmp_path, "--name=run") == 0
    folder = tmp_path / "run"
    (folder / "report.html").unlink()
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    capsys.readouterr()
    assert effconv_search(tmp_path, "--name=run", "--seed=1") == 2
    assert not (folder / "report.html").exists()
    capsys.readouterr()
    assert effconv_search(tmp_path, "--name=run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"run": str(folder), **json.loads((folder / "result.json").read_text())}
    assert "<html" in (folder / "report.html").read_text()
    assert before == {
        p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.suffix != ".html"
    }
    assert effconv_search(tmp_path, "--name=run") == 2


def test_a_run_of_an_earlier_release_without_its_report_gets_one(tmp_path):
    assert effconv_search(tmp_path, "--name=run") == 0
    folder = tmp_path / "run"
    for name in ("report.html", "effconv-run.json"):
        (folder / name).unlink()
    (folder / "report.html.partial").write_text("half")
    assert effconv_search(tmp_path, "--name=run") == 0
    assert (folder / "report.html").exists()


def test_the_report_that_is_written_before_the_result_says_it(tmp_path):
    assert effconv_search(tmp_path, "--name=run") == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "not finished" not in page
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    (tmp_path / "other" / "result.json").unlink()
    (tmp_path / "other" / "report.html").unlink()
    assert effconv_search(tmp_path, "--name=other") == 0
    written = (tmp_path / "other" / "report.html").read_text()
    accuracy = json.loads((tmp_path / "other" / "result.json").read_text())["accuracy"]
    assert f"{accuracy:.2%}" in written
    assert f"{accuracy:.2%}" in page
