"""Sizes and kernels of a pass: drawn on the host, or as tensors of one shape for a whole graph."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from effconv_core.config import SearchConfig
from effconv_core.method.kernel_source import KernelSource
from effconv_core.method.size_predictor import SizePredictor
from effconv_core.method.static_shapes import Padding
from effconv_core.rng import Draws
from effconv_core.space.search_space import SizeSpace


class DrawnSizes(NamedTuple):
    """What the kernels of a pass are made for: the learned sizes, or sizes drawn around them."""

    soft_sizes: Tensor
    """`(S,)`, v, differentiable in the size predictor's parameters."""
    sizes: list[int]
    """S allowed sizes, those of the kernels."""


def draw_sizes(
    learned: Tensor,
    on_host: list[float],
    *,
    space: SizeSpace,
    padding: Padding,
    config: SearchConfig,
    draws: Draws,
) -> DrawnSizes:
    """Draw the sizes of a training step around the learned ones.

    Args:
        learned: `(S,)`, the soft sizes.
        on_host: the same numbers, finite ones.
        space: the layers and what sizes they may have.
        padding: the same as tensors.
        config: how far exploration goes, in sizes, and the mask.
        draws: the numbers of the exploration; one draw is used up where there is any.
    """
    soft_sizes = learned
    if config.exploration:
        noise = 2 * draws(len(space.variable_ranges)) - 1
        noise = space.expand(noise) * config.exploration
        soft_sizes = (learned + noise.to(learned)).clamp(padding.smallest, padding.largest)
        explored = (v + n for v, n in zip(on_host, noise.tolist(), strict=True))
        on_host = [
            min(max(v, float(allowed[0])), float(allowed[-1]))
            for v, allowed in zip(explored, space.ranges, strict=True)
        ]
    # The mask draws the ring between a size and the next one.
    ring = config.mask == "ring"
    return DrawnSizes(soft_sizes, space.above(on_host) if ring else space.rounded(on_host))


class StaticForward:
    """The kernels of a training step as tensors whose shapes do not depend on the sizes.

    A pass draws what one on exact kernels draws, and nothing comes back to the host, so that it
    can be one graph. That graph is neither copied nor pickled.

    Args:
        config: exploration and mask.
        size_predictor: gives the soft sizes of the variables.
        kernel_predictor: gives the padded kernels.
        padding: the sizes of the space as tensors.
        draws: the numbers of the exploration.
    """

    def __init__(
        self,
        config: SearchConfig,
        size_predictor: SizePredictor,
        kernel_predictor: KernelSource,
        padding: Padding,
        draws: Draws,
    ) -> None:
        self.config, self.padding, self.draws = config, padding, draws
        self.size_predictor, self.kernel_predictor = size_predictor, kernel_predictor
        self.compiled: Callable[..., Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "compiled": None}

    def __call__(self, whole: Callable[..., Any], args: tuple, kwargs: dict, *, graph: bool) -> Any:
        """Run a pass on what is drawn for it.

        Args:
            whole: the pass; it takes the two tensors of `drawn`, `args` and `kwargs`, and is the
                same at every call.
            args: what the network takes.
            kwargs: what the network takes.
            graph: whether the pass is compiled, in the first call, and run as one graph.
        """
        noise, rings = self.drawn()
        if not graph:
            return whole(noise, rings, args, kwargs)
        graphs = self.size_predictor.head_bias.is_cuda
        if self.compiled is None:
            # The operators make tables in their first call and keep them, which nothing may do that
            # is first called where a CUDA graph has its memory: PyTorch stops there.
            with torch.no_grad():
                self.kernels(noise, rings)
            self.compiled = torch.compile(whole, mode="reduce-overhead" if graphs else None)
        given = self.compiled(noise, rings, args, kwargs)
        # The next step overwrites a CUDA graph's outputs, which `on_step` may have kept.
        return tree_map_only(Tensor, torch.clone, given) if graphs else given

    def drawn(self) -> tuple[Tensor | None, Tensor | None]:
        """Draw the `(V,)` numbers of the exploration, in sizes, and of the rings; None for none."""
        V, bias = len(self.size_predictor.head_bias), self.size_predictor.head_bias
        noise = rings = None
        if self.config.exploration:
            noise = (2 * self.draws(V) - 1) * self.config.exploration
            noise = noise.to(bias.device, bias.dtype, non_blocking=True)
        if self.config.mask == "ring":
            rings = self.kernel_predictor.draws(V).to(bias.device, non_blocking=True)
        return noise, rings

    def kernels(self, noise: Tensor | None, rings: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Return L padded kernels and the learned soft sizes `(S,)`, for what `drawn` gave."""
        padding = self.padding
        learned = soft_sizes = padding.expand(self.size_predictor())
        if noise is not None:
            explored = learned + padding.expand(noise)
            soft_sizes = explored.clamp(padding.smallest, padding.largest)
        if rings is not None:
            sizes, rings = padding.above(soft_sizes), padding.expand(rings)
        else:
            sizes = padding.nearest(soft_sizes)
        return self.kernel_predictor.padded(soft_sizes, sizes, padding, rings), learned
