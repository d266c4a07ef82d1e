"""Tools write what they have measured before they show it, so that no output can lose it."""

import json
import sys

import pytest

from tools import bench_fft, bench_latency, launch, run_list

FFT = {"channels": 3, "size": 5, "taps": 5, "direct": 2.0, "fft": 1.0}
LATENCY = {"plan": "a", "predicted": [1.0], "measured": [2.0], "error": 0.5, "errors": [0.5]}


class GoneError(Exception):
    """What an output raises that nobody can be shown anything by."""


class BrokenConsole:
    def print(self, *objects, **options):
        raise GoneError


@pytest.mark.parametrize(
    ("tool", "measured", "words"),
    [
        (bench_fft, FFT, ["--channels", "3", "--sizes", "5"]),
        (bench_latency, [LATENCY], []),
    ],
)
def test_figures_are_saved_before_they_are_shown(tool, measured, words, tmp_path, monkeypatch):
    out = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["tool", *words, "--out", str(out)])
    monkeypatch.setattr(tool, "measure", lambda *arguments: measured)
    monkeypatch.setattr(tool, "PlainConsole", BrokenConsole)
    with pytest.raises(GoneError):
        tool.main()
    assert json.loads(out.read_text())["environment"]


def test_what_a_run_of_a_list_found_is_collected_before_it_is_shown(tmp_path, monkeypatch):
    path, collected = tmp_path / "list.json", []
    runs = [run_list.Run("one", "nothing:at_all")]

    def work(path, console, on_end):
        (path.parent / "one").mkdir()
        (path.parent / "one" / "result.json").write_text("{}")
        on_end("one")

    monkeypatch.setattr(launch, "work", work)
    with pytest.raises(GoneError):
        launch.launch(path, runs, launch.Launch(), BrokenConsole(), on_end=collected.append)
    assert collected == runs
