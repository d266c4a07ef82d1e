"""Metrics of a run, with TensorBoard and without."""

import sys
from types import ModuleType

import pytest
from effconv_core.runs.metrics import Metrics, seconds_per_epoch


def test_metrics_do_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    metrics = Metrics(tmp_path)
    metrics.log("train", 0, 1, loss=0.5)
    metrics.close()
    assert [row["loss"] for row in metrics.rows()] == [0.5]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.fixture
def metrics(tmp_path, monkeypatch):
    """Give a function that begins the metrics of the same folder anew."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    return lambda: Metrics(tmp_path)


def test_a_phase_that_goes_on_drops_the_rows_that_it_repeats(metrics):
    first = metrics()
    for phase, epoch in (("search", 0), ("search", 1), ("search", 2), ("train", 1)):
        first.log(phase, epoch, epoch, loss=0.0)
    again = metrics()
    again.log("search", 1, 1, loss=1.0)
    again.log("search", 2, 2, loss=2.0)
    rows = [(row["phase"], row["epoch"], row["loss"]) for row in again.rows()]
    assert rows == [("search", 0, 0.0), ("train", 1, 0.0), ("search", 1, 1.0), ("search", 2, 2.0)]


def test_a_line_that_was_cut_off_is_left_out_and_one_without_a_reading_refused(metrics):
    found = metrics()
    assert found.rows() == []
    found.log("search", 0, 0, loss=0.5)
    with found.path.open("a") as file:
        file.write('{"phase": "sea')
    assert len(found.rows()) == 1
    with found.path.open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match=r"line 2.*delete .*metrics\.jsonl"):
        found.rows()
    with pytest.raises(ValueError, match="line 2"):
        metrics()  # before anything of a run that goes on is trained


def test_the_mean_time_of_an_epoch_is_over_all_phases_asked_for(metrics):
    found = metrics()
    found.log("search", 0, 0, seconds=2.0)
    found.log("search", 0, 1, loss=1.0)
    found.log("search", 1, 2, seconds=4.0)
    found.log("train", 0, 0, seconds=9.0)
    assert seconds_per_epoch(found, "search") == 3.0
    assert seconds_per_epoch(found, "search", "train") == 5.0
    assert seconds_per_epoch(found, "baseline") is None


class Writer:
    """Stands in for TensorBoard's."""

    made = None

    def __init__(self, folder, filename_suffix):
        self.folder, self.suffix, self.curves, self.closed = folder, filename_suffix, [], False
        Writer.made = self

    def add_scalar(self, *values):
        self.curves.append(values)

    def close(self):
        self.closed = True


def test_numbers_become_curves_where_there_is_tensorboard(tmp_path, monkeypatch):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "tensorboard").symlink_to(elsewhere)
    metrics = Metrics(tmp_path)
    metrics.log("train", 0, 7, loss=0.5, soft_sizes=[3.0], note="text")
    metrics.close()
    assert Writer.made.curves == [("train/loss", 0.5, 7)]
    assert Writer.made.closed
    assert Writer.made.folder == str(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").is_symlink()  # it would lead out of the run
    first = Writer.made.suffix
    Metrics(tmp_path)
    assert Writer.made.suffix != first
