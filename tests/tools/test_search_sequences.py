"""`hatch run search:spoken-digits` and `search:smnist`: sequences from search to report."""

import sys
import wave

import numpy as np
import pytest
from effconv_core import SizePlan
from effconv_data import load

from tools.presets import make_network, preset
from tools.search import main, parse


@pytest.fixture
def recordings(tmp_path):
    """A folder of sets with 40 recordings of four speakers: tones whose pitch is the digit."""
    folder = tmp_path / "fsdd/recordings"
    folder.mkdir(parents=True)
    time = np.arange(2000) / 8000
    for speaker in ("anna", "bob", "cem", "dora"):
        for digit in range(10):
            with wave.open(str(folder / f"{digit}_{speaker}_0.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                tone = 9000 * np.sin(2 * np.pi * 200 * (digit + 1) * time)
                file.writeframes(tone.astype("<i2").tobytes())
    return tmp_path


def test_spoken_digits_from_search_to_report(recordings, tmp_path, monkeypatch):
    words = ["--search-epochs", "1", "--search-finalists", "1", "--train-epochs", "1"]
    words += ["--search-least-steps", "0"]
    words += ["--batch-size", "8", "--train-batch-size", "8", "--runs", str(tmp_path / "runs")]
    monkeypatch.setenv("EFFCONV_DATA", str(recordings))
    monkeypatch.setattr(sys, "argv", ["search", "spoken-digits", *words, "--name", "digits"])
    assert main() == 0
    plan = SizePlan.load(tmp_path / "runs/digits/plan.json")
    assert len(plan) == 8
    assert max(plan.values()) <= 31
    assert (tmp_path / "runs/digits/report.html").is_file()


@pytest.mark.parametrize("data", ["smnist", "spoken-digits"])
@pytest.mark.parametrize("recipe", ["paper", "default"])
def test_the_budget_is_that_of_sizes_9(data, recipe, recordings):
    parsed, options = parse([data, "--recipe", recipe])
    assert (parsed, options.model, options.search.k) == (data, "resnet1d10", 15)
    batches = load("spoken-digits", root=recordings, batch_size=2)
    model = make_network(options.model, batches, 0)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert abs(preset(data, recipe).budget / parameters - 1) < 0.02
