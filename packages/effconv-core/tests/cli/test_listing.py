"""Runs of a folder in brief, and networks by name."""

import json
from types import ModuleType, SimpleNamespace

import pytest
from effconv_core.cli import listing
from effconv_core.cli.listing import described, is_run, list_command, model_names, models_command
from effconv_core.runs.owner import mark


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "a"
    mark(folder)
    settings = {"model": "m", "data": "d"}
    config = {"settings": settings, "environment": {"torch": "2"}}
    (folder / "config.json").write_text(json.dumps(config))
    networks = {"learned": {"parameters": 1234, "test_accuracy": 0.5}}
    (folder / "result.json").write_text(json.dumps({"networks": networks}))
    return folder


def test_a_finished_run_has_its_networks_count_and_accuracy(run):
    assert is_run(run)
    assert described(run) == {
        "run": "a",
        "model": "m",
        "data": "d",
        "parameters": 1234,
        "accuracy": 0.5,
        "state": "finished",
    }


@pytest.mark.parametrize(("gone", "model"), [("result.json", "m"), ("config.json", None)])
def test_how_far_a_run_is_shows_in_its_files(gone, model, run):
    finished = described(run)["state"]
    (run / gone).unlink()
    row = described(run)
    assert (row["model"], row["accuracy"]) == (model, None)
    assert row["state"] != finished


def test_a_damaged_run_is_told_with_its_file(run):
    (run / "result.json").write_text("[1")
    assert "result.json" in described(run)["state"]


@pytest.mark.parametrize("trace", ["effconv-run.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", ["[1", "{}", '{"settings": 3}'])
def test_a_run_whose_settings_are_damaged_has_its_row(trace, content, run, capsys):
    damaged = run.parent / "b"
    damaged.mkdir()
    if trace == "effconv-run.json":
        mark(damaged)
    else:
        (damaged / trace).touch()
    (damaged / "config.json").write_text(content)
    assert list_command([str(run.parent), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["run"] for row in rows] == ["a", "b"]
    assert rows[0]["state"] == "finished"
    assert rows[1]["state"] != "finished"
    assert list_command([str(run.parent)]) == 0


def test_a_run_of_a_later_release_has_its_row(run, capsys):
    marker = json.loads((run / "effconv-run.json").read_text()) | {"schema": 99}
    (run / "effconv-run.json").write_text(json.dumps(marker))
    assert list_command([str(run.parent), "--json"]) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == ["a"]


def test_only_runs_are_listed(run, capsys):
    (run.parent / "other").mkdir()
    (run.parent / "file").touch()
    assert not is_run(run.parent / "other")
    assert list_command([str(run.parent), "--json"]) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)] == ["a"]
    assert list_command([str(run.parent)]) == 0
    out = capsys.readouterr().out
    assert "1,234" in out
    assert "50.00%" in out
    assert list_command([str(run.parent / "none")]) == 2


def test_names_are_those_of_installed_packages(monkeypatch, capsys):
    module = ModuleType("small")
    module.list_models = lambda **only: ["net18", "next"]

    def load(name):
        if name == "small":
            return module
        raise ImportError(name)

    monkeypatch.setattr(
        listing, "brought", lambda group: {"own": SimpleNamespace(module="small.x")}
    )
    monkeypatch.setattr(listing.importlib, "import_module", load)
    assert list(model_names()) == ["own:net18", "own:next"]
    assert models_command(["net*"]) == 0
    assert capsys.readouterr().out == "own:net18\n"
    assert models_command(["et1"]) == 0
    assert capsys.readouterr().out == "own:net18\n"
    assert models_command(["own:*t"]) == 0
    assert capsys.readouterr().out == "own:next\n"
    assert models_command(["gone"]) == 2
    assert "'gone'" in capsys.readouterr().err
