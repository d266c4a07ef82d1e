"""Image classification sets in batches: WebDataset shards, your own tensors or a synthetic set."""

from effconv_data.load import load
from effconv_data.loading.augment import horizontal_flip, normalize, pad_crop, per_image
from effconv_data.loading.batches import Augment, Batches
from effconv_data.loading.resident import ResidentBatches
from effconv_data.loading.stream import StreamedBatches
from effconv_data.shards.problems import Problem, ShardError
from effconv_data.split import Split, read_split
from effconv_data.synthetic import synthetic
from effconv_data.verify import SplitReport, verify

__all__ = [
    "Augment",
    "Batches",
    "Problem",
    "ResidentBatches",
    "ShardError",
    "Split",
    "SplitReport",
    "StreamedBatches",
    "horizontal_flip",
    "load",
    "normalize",
    "pad_crop",
    "per_image",
    "read_split",
    "synthetic",
    "verify",
]
__version__ = "0.5.1"
