"""The loggers of a run: each by its own package, offline, and refused where that is missing."""

import sys

import pytest
from effconv_core.cli.pipeline import check_options
from effconv_core.engine.train import TrainConfig
from effconv_core.runs.loggers import check_logger
from effconv_core.runs.metrics import Metrics
from effconv_core.runs.options import RunOptions
from effconv_core.runs.writer import open_run

SETTINGS = {"device": "cpu", "train": {"epochs": 2, "lr": 0.1}}


@pytest.fixture
def begin(tmp_path):
    """Give a function that begins, or goes on with, a run of a logger, and logs two phases."""

    def begin(logger, *, overwrite=False, first=1):
        folder = tmp_path / "runs" / "small"
        open_run(folder, SETTINGS, "drawn", overwrite=overwrite)
        metrics = Metrics(folder, logger)
        metrics.log("search", 0, 10 * first, loss=0.5, sizes=[3, 5], note="text")
        metrics.log("train", 0, first, loss=0.25, epoch_accuracy=1)
        metrics.close()
        return folder

    return begin


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard"])
@pytest.mark.parametrize("there", [False, True])
def test_a_missing_package_is_named_before_anything_is_done(name, there, monkeypatch, tmp_path):
    kept = [place for place in sys.path if "packages/effconv" in place or "lib/python" not in place]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *kept])
    monkeypatch.delitem(sys.modules, name, raising=False)
    if there:
        (tmp_path / name).mkdir()  # a folder of that name, as wandb makes one, is no package
    options = RunOptions(train=TrainConfig(), device="cpu", logger=name)
    with pytest.raises(ValueError, match=rf"pip install 'effconv-core\[{name}\]'"):
        check_options(options)
    check_logger(None)


def test_tensorboard_by_name_is_what_it_is_by_default(begin):
    pytest.importorskip("tensorboard", reason="needs effconv-core[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(begin("tensorboard") / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == {"search/loss", "train/loss", "train/epoch_accuracy"}
    assert [(e.step, e.value) for e in events.Scalars("search/loss")] == [(10, 0.5)]


def test_mlflow_has_settings_and_curves_and_goes_on_in_the_same_run(begin, monkeypatch, tmp_path):
    pytest.importorskip("mlflow", reason="needs effconv-core[mlflow]")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    begin("mlflow")
    begin("mlflow", first=2)
    client = MlflowClient()
    place = client.get_experiment_by_name("effconv").experiment_id
    (run,) = client.search_runs([place])
    assert run.data.params == {"device": "cpu", "train.epochs": "2", "train.lr": "0.1"}
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.25), (2, 0.25)]
    assert (run.info.run_name, run.info.status) == ("small", "FINISHED")
    begin("mlflow", overwrite=True)  # another run, which has its own curves
    assert len(client.search_runs([place])) == 2


def test_wandb_has_settings_and_a_step_of_each_phase(begin, monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb", reason="needs effconv-core[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    logged, finished = [], []
    start = wandb.init

    def spied(**given):
        run = start(**given)
        log, finish = run.log, run.finish
        run.log = lambda values: [logged.append(values), log(values)]
        run.finish = lambda: [finished.append(dict(run.config)), finish()]
        return run

    monkeypatch.setattr(wandb, "init", spied)
    begin("wandb")
    assert logged == [
        {"search/loss": 0.5, "search/step": 10},
        {"train/loss": 0.25, "train/epoch_accuracy": 1.0, "train/step": 1},
    ]
    assert finished == [SETTINGS]
    (written,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert written.stat().st_size > 0
