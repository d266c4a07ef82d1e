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
    """Return what kills a command where it gives a file its name, by the number of that.

    It gives the command's status, None where it was killed, and how many files it has named.
    """

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
                return command(*words), count
            except KilledError:
                return None, count

    return run


STEPS = [pytest.param(6, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.long)]
"""Every sixth file from the last one back, or each of them."""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_killed_at_any_file_is_unfinished_and_ends_as_another(
    name, step, killed_at, tmp_path
):
    command = COMMANDS[name]
    status, count = killed_at(0, command, tmp_path, "--name=whole")
    whole = promised(tmp_path / "whole")
    assert status == 0
    assert "result.json" in whole
    assert count > 5
    for number in range(count, 0, -step):
        place = f"killed-{number}"
        assert killed_at(number, command, tmp_path, f"--name={place}")[0] != 0
        found = promised(tmp_path / place)
        assert "result.json" not in found
        # The last file of all is the one that says that it is finished.
        assert number < count or found | {"result.json"} >= whole
        assert command(tmp_path, f"--name={place}") == 0, place
        assert promised(tmp_path / place) >= whole


@pytest.mark.parametrize("step", STEPS)
def test_a_sweep_killed_at_any_file_ends_as_another(step, killed_at, tmp_path):
    status, count = killed_at(0, sweep_search, tmp_path / "whole")
    assert status == 0
    assert count > 5
    for number in range(count, 0, -step):
        folder = tmp_path / str(number)
        assert killed_at(number, sweep_search, folder)[0] != 0
        assert sweep_search(folder) == 0
        assert (folder / "results.jsonl").read_text().count("\n") == 1


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
