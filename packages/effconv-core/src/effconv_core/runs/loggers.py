"""Where the curves of a run go beside its own files: TensorBoard, Weights & Biases or MLflow."""

import importlib.util
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from effconv_core.io.atomic import remove_file
from effconv_core.runs.owner import TENSORBOARD, run_id
from effconv_core.runs.writer import dotted, settings_of

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
PROJECT = "effconv"  # name of the project of Weights & Biases, and of MLflow's experiment


class Logger(NamedTuple):
    """Takes the numbers of a run.

    Attributes:
        log: called with a phase, its step, counted from 1, and the values of that step by name.
        close: called when the run ends.
    """

    log: Callable[[str, int, Mapping[str, float]], None]
    close: Callable[[], None]


def check_logger(name: LoggerName | None) -> None:
    """Raise a ValueError if the package of a logger is not installed; None asks for none."""
    spec = None if name is None else importlib.util.find_spec(name)
    # A folder `wandb`, which wandb itself makes, is no package, and has no origin.
    if name is not None and (spec is None or spec.origin is None):
        raise ValueError(
            f"logger {name!r} needs the package {name}; pip install 'effconv-core[{name}]'"
        )


def make_logger(name: LoggerName | None, folder: Path) -> Logger | None:
    """Return the logger of a run whose folder has been made.

    A run that goes on after an interruption goes on with its curves, too, where the logger can.

    Args:
        name: of the logger; None takes TensorBoard where it is installed, and nothing elsewhere.
        folder: of the run; its name is the run's name, its settings are noted, and its id tells
            the runs apart.
    """
    if name is None:
        try:
            return _tensorboard(folder)
        except ImportError:
            return None
    return {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}[name](folder)


def _tensorboard(folder: Path) -> Logger:
    """Log into the folder `tensorboard` of the run's."""
    from torch.utils.tensorboard import SummaryWriter

    place = folder / TENSORBOARD
    if place.is_symlink():
        remove_file(place)  # it could lead anywhere
    # TensorBoard's own name is one that somebody can guess, and lay a link there.
    writer = SummaryWriter(str(place), filename_suffix=f".{secrets.token_hex(8)}")

    def log(phase: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(f"{phase}/{name}", value, step)

    return Logger(log, writer.close)


def _wandb(folder: Path) -> Logger:
    """Log to Weights & Biases, as its own environment variables say, such as WANDB_MODE."""
    import wandb

    settings = settings_of(folder)
    run = wandb.init(
        project=PROJECT, name=folder.name, id=run_id(folder), resume="allow", config=settings
    )
    # Each phase counts its own steps; those of wandb may only rise.
    phases: set[str] = set()

    def log(phase: str, step: int, values: Mapping[str, float]) -> None:
        if phase not in phases:
            phases.add(phase)
            run.define_metric(f"{phase}/*", step_metric=f"{phase}/step")
        named = {f"{phase}/{name}": value for name, value in values.items()}
        run.log({**named, f"{phase}/step": step})

    return Logger(log, run.finish)


def _mlflow(folder: Path) -> Logger:
    """Log to MLflow, where MLFLOW_TRACKING_URI says."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient
    from mlflow.utils.time import get_current_time_millis

    client, own = MlflowClient(), run_id(folder)
    experiment = client.get_experiment_by_name(PROJECT)
    place = client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
    before = client.search_runs([place], f"tags.`effconv.id` = '{own}'")
    if before:
        run = before[0].info.run_id
        client.update_run(run, status="RUNNING")
    else:
        run = client.create_run(place, run_name=folder.name).info.run_id
        settings = dotted(settings_of(folder) or {})
        params = [Param(name, str(value)) for name, value in settings.items()]
        client.log_batch(run, params=params, tags=[RunTag("effconv.id", own)])

    def log(phase: str, step: int, values: Mapping[str, float]) -> None:
        now = get_current_time_millis()
        rows = [Metric(f"{phase}/{name}", value, now, step) for name, value in values.items()]
        client.log_batch(run, metrics=rows)

    return Logger(log, lambda: client.set_terminated(run))
