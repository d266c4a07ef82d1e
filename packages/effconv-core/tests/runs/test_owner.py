"""What a run's folder is known by, and what is deleted in it and what never is."""

import json
from pathlib import Path

import pytest
from effconv_core.runs.lock import claim
from effconv_core.runs.metrics import Metrics
from effconv_core.runs.owner import LOCK, MARKER, Owner, check_place, clear, mark, owner_of, written
from effconv_core.runs.writer import FAILED, begun, check_run, open_run, write_result

SETTINGS = {"device": "cpu", "seed": 0, "tuple": (1, 2)}
HUGGING_FACE = {"architectures": ["BertModel"], "hidden_size": 768, "torch_dtype": "float32"}
BEFORE = {"settings": SETTINGS, "environment": {"device": "cpu", "python": "3", "torch": "2"}}


def snapshot(folder: Path) -> dict[str, object]:
    """Return what lies in a folder, following no link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = path.readlink()
        else:
            found[str(path.relative_to(folder))] = path.read_bytes() if path.is_file() else None
    return found


def test_going_on_deletes_links_that_lead_nowhere_under_names_of_a_run_only(tmp_path):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    assert not open_run(folder, SETTINGS, "drawn", overwrite=False)
    for name, end in (
        *(("search.safetensors", "gone"), ("plan.json", "gone")),
        *(("notes.txt", "gone"), ("report.md", "elsewhere")),
    ):
        (folder / name).symlink_to(tmp_path / end)
    assert open_run(folder, SETTINGS, "drawn", overwrite=False)
    links = {path.name for path in folder.iterdir() if path.is_symlink()}
    assert links == {"notes.txt", "report.md"}
    assert elsewhere.read_text() == "precious"


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(text)
    return folder


FOREIGN = {
    "a file": {"thesis__tex": "years of work"},
    "a configuration": {"config__json": json.dumps(HUGGING_FACE), "model__safetensors": "w"},
    "settings of something else": {"config__json": json.dumps({"settings": {"a": 1}})},
    "a broken configuration": {"config__json": "{"},
    "a deep configuration": {"config__json": "[" * 5000},
    "another marker": {"effconv-run__json": json.dumps({"kind": "run"})},
    "a result": {"result__json": "{}"},
    "something failed": {"failed__json": json.dumps({"tests": 3})},
    "a failure beside more": {"failed__json": '{"error": "a", "traceback": ""}', "a__txt": "a"},
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", FOREIGN)
def test_a_folder_that_is_no_run_is_refused_by_name_and_left_as_it_is(what, overwrite, tmp_path):
    folder = fill(tmp_path / "thesis", **FOREIGN[what])
    before = snapshot(tmp_path)
    for act in (
        lambda: check_run(folder, SETTINGS, overwrite=overwrite),
        lambda: open_run(folder, SETTINGS, "data", overwrite=overwrite),
        lambda: begun(folder, SETTINGS, "data", overwrite=overwrite).__enter__(),
        lambda: mark(folder),
        lambda: clear(folder),
    ):
        with pytest.raises(FileExistsError, match="thesis holds") as refusal:
            act()
        assert "--overwrite" not in str(refusal.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_and_a_link_to_nowhere_or_to_a_foreign_folder_are_refused(overwrite, tmp_path):
    foreign = fill(tmp_path / "foreign", thesis__tex="a")
    fill(tmp_path, file="text")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "link").symlink_to(foreign)
    before = snapshot(tmp_path)
    for name in ("file", "nowhere", "link"):
        with pytest.raises(FileExistsError, match=name):
            open_run(tmp_path / name, SETTINGS, "data", overwrite=overwrite)
    assert snapshot(tmp_path) == before


def test_a_link_to_an_empty_folder_or_to_a_run_is_that_run(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with begun(tmp_path / "run", SETTINGS, "data", overwrite=False) as goes_on:
        assert not goes_on
    assert (tmp_path / "disk" / MARKER).is_file()
    with begun(tmp_path / "run", SETTINGS, "data", overwrite=False) as goes_on:
        assert goes_on
    with begun(tmp_path / "run", {**SETTINGS, "seed": 1}, "data", overwrite=True):
        assert (tmp_path / "run").is_symlink()


def test_the_marker_is_there_before_anything_else_and_each_run_has_another(tmp_path, monkeypatch):
    ids = set()
    for name in ("a", "b"):
        with lock_sees_the_marker(monkeypatch, tmp_path / name):
            pass
        content = json.loads((tmp_path / name / MARKER).read_text())
        assert (content["kind"], content["schema"]) == ("run", 1)
        ids.add(content["id"])
    assert len(ids) == 2


def lock_sees_the_marker(monkeypatch, folder):
    from effconv_core.runs import writer

    def looking(place):
        assert [path.name for path in place.iterdir()] == [MARKER]
        return claim(place)

    monkeypatch.setattr(writer, "claim", looking)
    return begun(folder, SETTINGS, "data", overwrite=False)


def test_a_run_of_a_later_release_is_refused(tmp_path):
    text = json.dumps({"kind": "run", "schema": 2, "id": "0" * 32})
    (fill(tmp_path / "run") / MARKER).write_text(text)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="has schema 2; this version reads 1"):
        open_run(tmp_path / "run", SETTINGS, "data", overwrite=True)
    assert snapshot(tmp_path) == before


def test_a_run_of_an_earlier_release_goes_on_and_can_be_overwritten(tmp_path):
    folder = fill(tmp_path / "run", config__json=json.dumps(BEFORE), notes__txt="mine")
    assert check_run(folder, SETTINGS, overwrite=False)
    assert open_run(folder, SETTINGS, "data", overwrite=False)
    assert (folder / MARKER).is_file()
    other = {**SETTINGS, "seed": 1}
    with pytest.raises(FileExistsError, match="seed was 0, now 1.*--overwrite"):
        open_run(folder, other, "data", overwrite=False)
    assert not open_run(folder, other, "data", overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"failed__json": '{"error": "a", "traceback": ""}'},
        {"config__json__partial": "{"},
        {".config__json__0123456789abcdef__partial": "{"},
        {".effconv-run__json__0123456789abcdef__partial": "{"},
    ],
)
def test_what_a_kill_left_of_a_run_that_had_hardly_begun_is_begun_anew(files, tmp_path):
    folder = fill(tmp_path / "run", **files)
    (folder / LOCK).write_text("process 1 on it")
    assert not check_run(folder, SETTINGS, overwrite=False)
    assert not open_run(folder, SETTINGS, "data", overwrite=False)
    assert owner_of(folder) is Owner.RUN


def test_overwriting_deletes_what_runs_write_and_nothing_else(tmp_path):
    folder = tmp_path / "run"
    open_run(folder, SETTINGS, "data", overwrite=False)
    metrics = Metrics(folder)
    metrics.log("train", 0, 1, loss=1.0)
    metrics.close()
    ours = (
        *("plan.json", "result.json", "report.md", "report.html", "sizes.png", "cnn.safetensors"),
        *("search.safetensors", "search.previous.safetensors", "threshold-0.1.safetensors"),
        *("failed.json", "mixing.json", "course.png", "kernels.safetensors", "report.html.partial"),
        *("search.previous.safetensors.partial", f".plan.json.{'0f' * 8}.partial"),
        "search.safetensors.spare",
    )
    theirs = (
        *("notes.txt", "plan.json.bak", "model.safetensors", ".hidden", "searched.safetensors"),
        *("my.plan.json", f".notes.{'0f' * 8}.partial", "notes.partial", "sizes.svg"),
        *("tensorboard/notes", "sub/plan.json", ".claims/notes"),
    )
    for name in (*ours, *theirs):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    assert len(list(written(folder))) == len(ours) + 3
    assert not open_run(folder, {**SETTINGS, "seed": 1}, "data", overwrite=True)
    left = {name for name, content in snapshot(folder).items() if content is not None}
    assert left == {*theirs, MARKER, "config.json"}


def test_links_in_a_run_are_replaced_and_what_they_lead_to_stays(tmp_path):
    victims = fill(tmp_path / "victims", a="precious")
    (victims / "events.out.tfevents.1").write_text("precious")
    folder = tmp_path / "run"
    open_run(folder, SETTINGS, "data", overwrite=False)
    for name in ("metrics.jsonl", "result.json", "search.safetensors"):
        (folder / name).symlink_to(victims / "a")
    (folder / "tensorboard").symlink_to(victims)
    before = snapshot(victims)
    assert not open_run(folder, {**SETTINGS, "seed": 1}, "data", overwrite=True)
    assert {path.name for path in folder.iterdir()} == {MARKER, "config.json"}
    (folder / "metrics.jsonl").symlink_to(victims / "missing")
    (folder / "result.json").symlink_to(victims / "a")
    (folder / "tensorboard").symlink_to(victims)
    metrics = Metrics(folder)
    metrics.log("train", 0, 1, loss=1.0)
    metrics.close()
    write_result(folder, {"accuracy": 1.0})
    assert snapshot(victims) == before
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert json.loads((folder / "result.json").read_text()) == {"accuracy": 1.0}


@pytest.mark.parametrize("name", [".claims", LOCK, MARKER])
def test_locks_and_markers_that_are_links_are_refused(name, tmp_path):
    victims = fill(tmp_path / "victims", a="precious")
    folder = fill(tmp_path / "run", config__json=json.dumps(BEFORE))
    (folder / name).symlink_to(victims if name == ".claims" else victims / "a")
    before = snapshot(tmp_path)
    with pytest.raises(FileExistsError, match="is a link"):
        begun(folder, SETTINGS, "data", overwrite=True).__enter__()
    assert snapshot(tmp_path) == before


def test_an_overwriting_that_was_killed_is_neither_gone_on_with_nor_lost(tmp_path, monkeypatch):
    from effconv_core.runs import owner

    folder = tmp_path / "run"
    open_run(folder, SETTINGS, "data", overwrite=False)
    for name in ("search.safetensors", "plan.json", "metrics.jsonl"):
        (folder / name).write_text("of the first")
    delete, removed = owner.remove_file, []

    def kill(path):
        removed.append(path)
        if len(removed) == 3:
            raise KeyboardInterrupt
        delete(path)

    monkeypatch.setattr(owner, "remove_file", kill)
    with pytest.raises(KeyboardInterrupt):
        open_run(folder, SETTINGS, "data", overwrite=True)
    monkeypatch.undo()
    assert owner_of(folder) is Owner.RUN
    with pytest.raises(FileExistsError, match="config.json is missing; pass --overwrite"):
        check_run(folder, SETTINGS, overwrite=False)
    assert not open_run(folder, SETTINGS, "data", overwrite=True)
    assert {path.name for path in folder.iterdir()} == {MARKER, "config.json"}


def test_a_failed_run_is_tried_again(tmp_path):
    folder = tmp_path / "run"
    mark(folder)
    (folder / FAILED).write_text("{}")
    assert check_place(folder) is Owner.RUN
    assert not open_run(folder, SETTINGS, "data", overwrite=False)


@pytest.mark.parametrize("there", ["plan.json/", "report.html/", "tensorboard"])
def test_what_is_in_the_way_of_a_run_is_refused_before_anything_is_deleted(there, tmp_path):
    folder = fill(tmp_path / "run", config__json=json.dumps(BEFORE), metrics__jsonl="")
    if there.endswith("/"):
        (folder / there).mkdir()
    else:
        (folder / there).write_text("")
    before = snapshot(tmp_path)
    with pytest.raises(FileExistsError, match=there.rstrip("/")):
        open_run(folder, SETTINGS, "data", overwrite=True)
    assert snapshot(tmp_path) == before


def test_a_copied_marker_makes_no_run_of_somebodys_folder(tmp_path):
    mark(tmp_path / "run")
    text = (tmp_path / "run" / MARKER).read_text()
    folder = fill(tmp_path / "mine", config__json=json.dumps(HUGGING_FACE), report__md="mine")
    (folder / MARKER).write_text(text)
    before = snapshot(tmp_path)
    with pytest.raises(FileExistsError, match="mine"):
        open_run(folder, SETTINGS, "data", overwrite=True)
    assert snapshot(tmp_path) == before
