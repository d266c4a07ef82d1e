import io
import re

import pytest
import torch
from effconv_core.engine.search import SearchStep
from effconv_core.engine.train import TrainStep
from effconv_core.io.progress_bar import progress_bar
from effconv_core.runs.metrics import Metrics
from effconv_core.runs.progress import step_meter
from rich.console import Console


def steps():
    """Give an epoch of two batches, of 3 and of 1 sample, whose means are not those of batches."""
    good, bad = torch.eye(2)[[0, 0, 0]], torch.eye(2)[[1]]
    zeros = torch.zeros(4, dtype=torch.long)
    yield TrainStep(0, 0, torch.tensor(1.0), good, zeros[:3], 0.1)
    yield TrainStep(0, 1, torch.tensor(5.0), bad, zeros[:1], 0.05)


def test_a_line_shows_means_over_the_epoch_and_a_row_holds_them_with_the_rate(tmp_path):
    file, metrics = io.StringIO(), Metrics(tmp_path)
    with progress_bar(Console(file=file)) as progress:
        on_step = step_meter(progress, metrics, "train", epochs=1, steps_per_epoch=2)
        for step in steps():
            on_step(step)
    metrics.close()
    (row,) = metrics.rows()
    assert (row["epoch_loss"], row["epoch_accuracy"]) == (2.0, 0.75)
    assert (row["loss"], row["accuracy"], row["lr"]) == (5.0, 0.0, 0.05)
    assert "loss 2.000  accuracy 75.0%" in file.getvalue()


@pytest.mark.parametrize("classes", [2, 3])
def test_the_likeliest_of_class_probabilities_counts(classes, tmp_path):
    metrics = Metrics(tmp_path)
    outputs, targets = torch.eye(classes)[[0, 1]], torch.eye(classes)[[0, 0]]
    with progress_bar(Console(file=io.StringIO())) as progress:
        on_step = step_meter(progress, metrics, "train", epochs=1, steps_per_epoch=1)
        on_step(TrainStep(0, 0, torch.tensor(1.0), outputs, 0.9 * targets + 0.01, 0.1))
    metrics.close()
    assert [row["accuracy"] for row in metrics.rows()] == [0.5]


def test_a_step_is_shown_in_one_line_without_the_outputs_of_its_batch():
    outputs, sizes = torch.zeros(128, 10), torch.zeros(90)
    loss, labels = torch.tensor(1.5), torch.zeros(128, dtype=torch.long)
    for step in (
        TrainStep(3, 7, loss, outputs, labels, 0.1),
        SearchStep(3, 7, loss, loss, outputs, labels, sizes, None),
    ):
        assert {"3", "7", "1.5000"} <= set(re.findall(r"[\d.]+", repr(step)))
        assert len(repr(step)) < 120


def test_the_time_of_a_long_phase_is_told_once_after_some_steps(monkeypatch):
    clock = iter(range(0, 10_000, 6))
    monkeypatch.setattr("effconv_core.runs.progress.time.perf_counter", lambda: next(clock))
    file = io.StringIO()
    with progress_bar(Console(file=file)) as progress:
        on_step = step_meter(progress, None, "train", epochs=50, steps_per_epoch=20)
        for number in range(40):
            outputs, labels = torch.eye(2), torch.arange(2)
            on_step(TrainStep(number // 20, number % 20, torch.tensor(1.0), outputs, labels))
    assert len(re.findall(r"about [\d,]+ min", file.getvalue())) == 1


@pytest.mark.parametrize("phase", ["search", "baseline"])
def test_the_bar_stays_on_one_line_of_eighty_columns(phase):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    with progress_bar(console) as progress:
        progress.add_task(phase, total=2, status="12.345 100.0% cost -100%")
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", file.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert lines
    assert all("cost -100%" in line and len(line) <= 76 for line in lines)
