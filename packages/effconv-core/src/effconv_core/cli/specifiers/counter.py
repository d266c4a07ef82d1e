"""Build what a --counts option names."""

from pathlib import Path

import torch

from effconv_core.cost.base import Counter
from effconv_core.cost.latency import Latency
from effconv_core.cost.macs import Macs


def counter_of(counts: str, example: torch.Tensor, table: Path | None) -> Counter | None:
    """Return what a cost counts, for `Budget`; None counts parameters.

    Args:
        counts: `parameters`, `macs` or `latency`.
        example: an input of one sample.
        table: of `latency`.
    """
    if counts == "latency":
        return Latency(example, table)
    return Macs(example) if counts == "macs" else None
