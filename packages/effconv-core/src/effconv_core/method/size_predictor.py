"""The size predictor: a soft kernel size for each layer (EffConv Eq. 1, 2)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effconv_core.config import FORMER_B, SearchConfig
from effconv_core.method.gru import FixedInputGRUs


def squash(
    x: Tensor, k: float | Tensor, tau: float, b: float | Tensor, smallest: int | Tensor = 1
) -> Tensor:
    """Map any number to a soft size from `smallest` to `smallest + 2k` (EffConv Eq. 1).

    That is k tanh(x / tau + b) + k + 1 for the paper's smallest size, 1.
    """
    return k * torch.tanh(x / tau + b) + k + smallest


def b_of(start: float, allowed: range) -> float:
    """Return the b at which a soft size starts close to a given size.

    It is rounded to hundredths, as the paper's -0.35 for size 3 of 1 to 7 is, and finer for wider
    ranges. A size at or beyond an end of the range starts a quarter of a size within it, where tanh
    still has a slope.

    Args:
        start: the size, which need not be an allowed one.
        allowed: the range of the size.
    """
    half = (allowed[-1] - allowed[0]) / 2
    if not half:
        return 0.0
    inner = max(half - 0.25, 0.0)
    offset = min(max(start - allowed[0] - half, -inner), inner)
    return round(math.atanh(offset / half), 1 + len(str(int(half))))


class SizePredictor(nn.Module):
    """A GRU that runs one step per size on a fixed input, with a linear head for each size.

    The heads start at zero, so that with the paper's range each layer starts at the soft size
    k tanh(b) + k + 1.

    Args:
        ranges: V ranges, the allowed values of each size variable (one a layer by default).
        config: tau, b and the hidden size.
        generator: source of the fixed input and of the initial values.
        starts: V sizes close to which the variables start where the config's b is None; None is 3
            for each.
    """

    def __init__(
        self,
        ranges: Sequence[range],
        config: SearchConfig,
        generator: torch.Generator,
        starts: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.tau = config.tau
        starts = [3.0] * len(ranges) if starts is None else starts
        b = [
            b_of(start, allowed) if config.b is None else config.b
            for start, allowed in zip(starts, ranges, strict=True)
        ]
        self.register_buffer("b", torch.tensor(b))
        self._former_b = FORMER_B if config.b is None else config.b
        self.gru = FixedInputGRUs(1, config.size_hidden, generator)
        self.head_weight = nn.Parameter(torch.zeros(len(ranges), config.size_hidden))
        self.head_bias = nn.Parameter(torch.zeros(len(ranges)))
        smallest = torch.tensor([float(allowed[0]) for allowed in ranges])
        largest = torch.tensor([float(allowed[-1]) for allowed in ranges])
        self.register_buffer("smallest", smallest, persistent=False)
        self.register_buffer("largest", largest, persistent=False)
        self.register_buffer("half_range", (largest - smallest) / 2, persistent=False)

    def former_state(self) -> dict[str, Tensor]:
        """Return what states from before 0.5.0 lack: the same b for every variable."""
        return {"b": torch.full_like(self.b, self._former_b)}

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}b", self.former_state()["b"])
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self) -> Tensor:
        """Return the soft sizes v, `(V,)`."""
        states = self.gru([len(self.head_bias)])
        x = (states * self.head_weight).sum(dim=1) + self.head_bias
        return squash(x, self.half_range, self.tau, self.b, self.smallest)
