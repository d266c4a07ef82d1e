"""`--logger` of the two trainings: it reaches the run, and is refused before a folder is made."""

import json

import pytest
from effconv_core.runs import loggers
from rich.console import Console

from tools.train import flexnet, multi_resolution


def flexnet_options(**changes):
    small = {"data": "demo", "model": "flexnet3", "channels": 4, "limit": 256, "device": "cpu"}
    return flexnet.FlexNetOptions(**small, **changes)


def multi_resolution_options(**changes):
    small = {"data": "demo", "layers": 4, "channels": 4, "limit": 1024, "test_limit": 100}
    return multi_resolution.MultiResolutionOptions(**small, device="cpu", **changes)


TRAININGS = [(flexnet, flexnet_options), (multi_resolution, multi_resolution_options)]


@pytest.mark.parametrize(("module", "options"), TRAININGS)
def test_a_logger_reaches_the_run_and_is_no_setting_of_it(module, options, tmp_path, monkeypatch):
    def stop(folder, logger):
        raise InterruptedError(logger)

    monkeypatch.setattr(module, "Metrics", stop)
    with pytest.raises(InterruptedError, match="tensorboard"):
        module.run(options(runs=tmp_path, name="a", logger="tensorboard"), Console(quiet=True))
    settings = json.loads((tmp_path / "a/config.json").read_text())["settings"]
    assert "logger" not in settings


@pytest.mark.parametrize(("module", "options"), TRAININGS)
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_missing_leaves_no_folder(module, options, name, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"effconv-core\[{name}\]"):
        module.run(options(runs=tmp_path, name="a", logger=name), Console(quiet=True))
    assert not list(tmp_path.iterdir())
