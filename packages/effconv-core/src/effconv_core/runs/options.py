"""Options of the commands that make a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from effconv_core.config import SearchConfig
from effconv_core.engine.train import TrainConfig
from effconv_core.runs.loggers import LoggerName

Recipe = Literal["bank", "paper", "literal"]


def option(type_: Any, **options: Any) -> Any:
    """Annotate an option so that its help does not repeat the default."""
    return Annotated[type_, tyro.conf.arg(help_behavior_hint="", **options)]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of all runs."""

    train: TrainConfig
    seed: int = 0
    """Seed of order, augmentation and weights."""
    sync_batchnorm: option(bool) = False
    """Use batch normalisation statistics over the images of all ranks; only on GPUs."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """`cpu`, `cuda` or `cuda:1`, for example."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    name: option(str) = ""
    """Name of the run's folder; by default from the rest."""
    logger: option(LoggerName | None, metavar="NAME") = None
    """`wandb`, `mlflow` or `tensorboard`: where curves go."""
    overwrite: option(bool) = False
    """Delete a run of this name and start again."""


@dataclass(frozen=True, kw_only=True)
class SearchArguments:
    """Options of the search, in addition to `RunOptions`."""

    budget: option(float | None, metavar="FLOAT") = None
    """Target number of parameters; by default the network's own."""
    search: SearchConfig
    batch_size: int = 128
    """Batch size of the search, over all ranks; by default
    128, or less where the set is small."""
    recipe: option(Recipe, metavar="NAME") = "bank"
    """`bank`, `paper` or `literal`; sets other defaults."""
    baseline: option(bool) = False
    """Train the network with its original sizes too."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions(RunOptions, SearchArguments):
    """Options of a search followed by the training of the found CNN."""
