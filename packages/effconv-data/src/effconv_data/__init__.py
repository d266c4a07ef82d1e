"""Image classification sets in batches: WebDataset shards, own tensors or a synthetic set."""

from effconv_data.augment import horizontal_flip, normalize, pad_crop
from effconv_data.loader import Augment, Batches, load
from effconv_data.shards import Split, read_split
from effconv_data.synthetic import synthetic

__all__ = [
    "Augment",
    "Batches",
    "Split",
    "horizontal_flip",
    "load",
    "normalize",
    "pad_crop",
    "read_split",
    "synthetic",
]
__version__ = "0.1.0"
