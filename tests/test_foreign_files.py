"""Lists of runs, tables of results and releases leave alone what they have not made."""

import json
import os
import stat
from pathlib import Path

import pytest
from effconv_core.runs.owner import MARKER

from tests.small_runs import (
    COMMANDS,
    effconv_search,
    quiet,
    sweep_search,
    train_flexnet,
    train_multi_resolution,
)
from tools.queue.launchers import Launch, launch
from tools.queue.run_list import Run, work, write_list
from tools.release.__main__ import begin
from tools.reproduce.pictures import NAMED, named
from tools.reproduce.rows import Row
from tools.reproduce.run import run_name
from tools.support.rows import append_row, read_rows
from tools.versus.__main__ import open_results


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["..", "../thesis", "/tmp/thesis", "-x", "", "a\n"])
def test_a_list_with_a_run_that_has_no_name_is_refused(name, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "failed.json").write_text("{}")
    before = files(tmp_path)
    with pytest.raises(ValueError, match="a run of .*list.json is "):
        write_list(tmp_path / "runs" / "list.json", [Run(name, "a:b")])
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "there", ["thesis/notes.txt", "thesis/failed.json", "list.json", "results.jsonl"]
)
def test_a_list_over_something_else_is_refused(there, tmp_path):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text('{"mine": 1}')
    with pytest.raises(FileExistsError, match=Path(there).parts[0]):
        write_list(tmp_path / "list.json", [Run("thesis", "a:b")], ["results.jsonl"])
    assert files(tmp_path) == {there: b'{"mine": 1}'}


def test_a_list_is_written_over_itself_and_its_failed_runs_are_tried_again(tmp_path):
    runs, path = [Run("a", "no_such_module:b")], tmp_path / "list.json"
    for _ in range(2):
        write_list(path, runs, ["results.jsonl"])
        (tmp_path / "results.jsonl").write_text("")
        work(tmp_path / "a", runs[0], quiet())
        assert (tmp_path / "a" / "failed.json").exists()
        assert (tmp_path / "a" / MARKER).exists()


def test_a_worker_begins_no_run_in_a_folder_that_became_somebodys(tmp_path):
    write_list(tmp_path / "list.json", [Run("a", "b:c")])
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("mine")
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=r"holds thesis\.tex"):
        work(tmp_path / "a", Run("a", "b:c"), quiet())
    assert files(tmp_path) == before


def test_logs_of_workers_follow_no_link(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "list.worker-1.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="list.worker-1.log"):
        launch(tmp_path / "list.json", [Run("a", "b:c")], Launch(workers=2), quiet())
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("text", ["a letter without an end of line", "rows\nof\nwords"])
def test_a_file_without_rows_is_not_taken_for_results(text, tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text(text)
    for act in (lambda: read_rows(path), lambda: open_results(path, "smoke")):
        with pytest.raises(ValueError, match=r"letter\.txt"):
            act()
    assert path.read_text() == text


def test_rows_that_an_interruption_cut_off_are_left_out_and_links_are_not_appended_to(tmp_path):
    path, link = tmp_path / "rows.jsonl", tmp_path / "link.jsonl"
    append_row(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": ')
    assert read_rows(path) == [{"a": 1}]
    link.symlink_to(path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="link"):
        append_row(link, {"a": 2})
    assert path.read_bytes() == before


def test_a_release_check_deletes_what_one_has_left_and_refuses_all_else(tmp_path):
    out = tmp_path / "release"
    begin(out)
    left = (
        "check.json",
        "dist/effconv_core-0.3.0-py3-none-any.whl",
        "dist/effconv_core-0.3.0.tar.gz",
    )
    for name in left:
        (out / name).write_text(name)
    begin(out)
    assert files(out) == {}
    for name in ("config.json", "dist/thesis.tar.gz", "sub/check.json"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
        (out / "check.json").write_text("ours")
        with pytest.raises(ValueError, match=name):
            begin(out)
        assert files(out) == {name: b"mine", "check.json": b"ours"}
        (out / name).unlink()
    (tmp_path / "victim").write_text("precious")
    (out / "check.json").unlink()
    (out / "check.json").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match=r"check\.json"):
        begin(out)
    assert (tmp_path / "victim").read_text() == "precious"


def test_pictures_that_a_page_makes_are_told_from_others():
    assert NAMED.fullmatch(named("kernels-cpu-found", b"a"))
    assert NAMED.fullmatch(named("accuracy-over-depth-gpu", [1]))
    for other in ("kernels.png", "photo-0123456789ab.png", "kernels-cpu-found.png", "notes.txt"):
        assert not NAMED.fullmatch(other)


def test_a_row_has_the_name_that_it_had_and_one_of_odd_words_stays_in_its_folder():
    row = Row("cifar10", "cifar_resnet20", 270_000, "random 1")
    assert run_name(row, 0) == "cifar10-cifar_resnet20-0.27M-random-1-seed0"
    odd = Row("../..", "a/b", 270_000, "found")
    assert "/" not in run_name(odd, 0)


def test_a_sweep_stays_within_its_folder_whatever_the_model_is_called(tmp_path):
    assert sweep_search(tmp_path / "sweep") == 0
    (run,) = (path.parent for path in (tmp_path / "sweep").glob("*/" + MARKER))
    assert run.name == "demo-demo-10684-bank-seed0"


@pytest.mark.parametrize("command", [*COMMANDS.values()], ids=[*COMMANDS])
def test_all_files_of_a_run_have_the_mode_that_the_umask_gives(command, tmp_path):
    before = os.umask(0o027)
    try:
        assert command(tmp_path, "--name=run") == 0
    finally:
        os.umask(before)
    modes = {
        path.name: oct(stat.S_IMODE(path.stat().st_mode))
        for path in (tmp_path / "run").rglob("*")
        if path.is_file()
    }
    assert any(name.endswith(".safetensors") for name in modes)
    assert set(modes.values()) == {"0o640"}


PLANTED = {
    "effconv search": (
        effconv_search,
        *("metrics.jsonl", "sizes.png", "search.safetensors", "search.previous.safetensors"),
        *("search.previous.safetensors.partial", "plan.json", "plan.json.partial", "report.md"),
        *("report.md.partial", "report.html", "report.html.partial", "train.safetensors"),
        *("cnn.safetensors", "config.json.partial"),
    ),
    "train:flexnet": (
        train_flexnet,
        *("metrics.jsonl", "sizes.png", "cnn.safetensors", "cnn.safetensors.partial"),
        *("train.safetensors", "train.previous.safetensors", "plan.json", "report.md"),
        *("report.html", "report.html.partial"),
    ),
    "train:multi-resolution": (
        train_multi_resolution,
        *("mixing.json", "mixing.png", "course.png", "report.md", "cnn.safetensors"),
        *("cnn.safetensors.partial", "one-resolution.safetensors", "metrics.jsonl"),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_links_planted_under_any_name_of_a_run_change_nothing_at_their_other_end(name, tmp_path):
    command, *names = PLANTED[name]
    assert command(tmp_path, "--name=run") == 0
    folder, victims = tmp_path / "run", tmp_path / "victims"
    victims.mkdir()
    (victims / "folder").mkdir()
    settings = json.loads((folder / "config.json").read_text())
    for path in [*folder.iterdir()]:
        if path.is_file() and path.name not in ("config.json", MARKER):
            path.unlink()
    for number, planted in enumerate(names):
        # What a resumed run reads through a link is whole, or missing.
        if planted != "metrics.jsonl" and number % 2:
            (folder / planted).symlink_to(victims / f"missing-{number}")
            continue
        text = "" if planted == "metrics.jsonl" else "precious"
        if planted.endswith(".safetensors") and "previous" not in planted:
            (folder / planted).symlink_to(victims / f"missing-{number}")
            continue
        (victims / planted).write_text(text)
        (folder / planted).symlink_to(victims / planted)
    for event in (folder / "tensorboard").iterdir():
        event.unlink()
    (folder / "tensorboard").rmdir()
    (folder / "tensorboard").symlink_to(victims / "folder")
    before = files(victims)
    assert command(tmp_path, "--name=run") == 0
    assert files(victims) == before
    assert list((victims / "folder").iterdir()) == []
    assert json.loads((folder / "config.json").read_text()) == settings
    made = {p.name for p in folder.iterdir() if not p.name.endswith(".partial")}
    assert made >= {planted for planted in names if not planted.endswith(".partial")} - {
        "search.previous.safetensors",
        "train.previous.safetensors",
    }
    assert not [p for p in folder.iterdir() if p.is_symlink()]
