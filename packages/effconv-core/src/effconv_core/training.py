"""Training of a CNN from scratch, with the settings of the papers and of users."""

from effconv_core.engine.train import (
    TRAIN_RECIPES,
    TrainConfig,
    TrainStep,
    evaluate,
    make_optimizer,
    train,
    training_of,
)

__all__ = [
    "TRAIN_RECIPES",
    "TrainConfig",
    "TrainStep",
    "evaluate",
    "make_optimizer",
    "train",
    "training_of",
]
