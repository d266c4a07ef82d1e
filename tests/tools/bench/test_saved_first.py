"""Tools write what they have measured before they show it, so that no output can lose it."""

import json
from dataclasses import replace

import pytest

from tools.bench import fft, latency, search_step
from tools.queue import launchers
from tools.queue.run_list import Run

FFT = {"channels": 3, "size": 5, "taps": 5, "direct": 2.0, "fft": 1.0}
LATENCY = {"plan": "a", "predicted": [1.0], "measured": [2.0], "error": 0.5, "errors": [0.5]}
SECONDS = {"median": 1.0, "p20": 1.0, "p80": 1.0}
PAIRS = {"seconds": {"plain": SECONDS, "search": SECONDS}, "ratio_of_medians": 1.0}


class GoneError(Exception):
    """What an output raises that nobody can be shown anything by."""


class BrokenConsole:
    def print(self, *objects, **options):
        raise GoneError


@pytest.mark.parametrize(
    ("tool", "timing", "measured", "options"),
    [
        (fft, "time_kernel", FFT, replace(fft.FftOptions(), channels=(3,), sizes=(5,))),
        (latency, "time_plans", [LATENCY], latency.LatencyOptions()),
        (search_step, "time_pairs", PAIRS, search_step.SearchStepOptions()),
    ],
)
def test_figures_are_saved_before_they_are_shown(
    tool, timing, measured, options, tmp_path, monkeypatch
):
    out = tmp_path / "figures.json"
    monkeypatch.setattr(tool, timing, lambda *arguments: measured)
    with pytest.raises(GoneError):
        tool.run(replace(options, out=out), BrokenConsole())
    assert json.loads(out.read_text())["environment"]


def test_what_a_run_of_a_list_found_is_collected_before_it_is_shown(tmp_path):
    path, collected, run = tmp_path / "list.json", [], Run("one", "nothing:at_all")

    class Console(BrokenConsole):
        def print(self, *objects, **options):
            if str(objects[0]).startswith("1/1"):
                raise GoneError

    with pytest.raises(GoneError):
        launchers.launch(path, [run], launchers.Launch(), Console(), on_end=collected.append)
    assert collected == [run]
