"""The public names of the training are those of the engine."""

from effconv_core import training
from effconv_core.engine import train


def test_every_name_is_the_engines():
    assert {"TrainConfig", "train", "evaluate", "training_of"} <= set(training.__all__)
    for name in training.__all__:
        assert getattr(training, name) is getattr(train, name)
