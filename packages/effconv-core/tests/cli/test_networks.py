"""The networks of a run, as it trains them."""

from effconv_core.cli.networks import fresh_cnn, original_sizes, placed
from effconv_core.distributed.process_group import Ranks
from effconv_core.engine.train import TrainConfig
from effconv_core.runs.options import RunOptions
from torch import nn


def test_the_original_sizes_of_kernels_of_any_kind():
    convs = nn.Conv2d(1, 1, (1, 7)), nn.Conv2d(1, 1, 3), nn.Conv3d(1, 2, 3), nn.Conv1d(1, 1, 5)
    model = nn.Sequential(*convs)
    sizes = original_sizes(model, ["0", "1", "2", "3"])
    assert sizes == {"0": (1, 7), "1": 3, "2": 3, "3": 5}
    options = RunOptions(train=TrainConfig())
    fresh = fresh_cnn(placed(model, options, Ranks(0, 1, None, "cpu")), sizes, options)
    assert [m.weight.shape for m in fresh] == [m.weight.shape for m in model]
