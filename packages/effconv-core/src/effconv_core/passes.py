"""How a training step's pass is run: its precision, padded shapes, and as one graph."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

if TYPE_CHECKING:
    from effconv_core.searchable import SearchableCNN


def network(searchable: "SearchableCNN", args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run the CNN on the kernels that its layers hold; what autocast gives comes in float32."""
    if not searchable.training or searchable.config.precision == "float32":
        return searchable.model(*args, **kwargs)
    # The kernels stay in float32 and are cast where they are used, so that masks, and the sums of
    # their gradients, are not rounded.
    device = searchable.size_predictor.head_bias.device
    with torch.autocast(device.type, torch.bfloat16):
        outputs = searchable.model(*args, **kwargs)
    return tree_map_only(Tensor, _in_float32, outputs)


def _in_float32(output: Tensor) -> Tensor:
    return output.float() if output.dtype == torch.bfloat16 else output


def padded(searchable: "SearchableCNN", args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Tensor]:
    """Run a training step's pass on padded kernels; give outputs and soft sizes `(S,)`.

    It draws what a pass on exact kernels draws, and nothing comes back to the host.
    """
    config, V = searchable.config, len(searchable.space.variable_ranges)
    bias = searchable.size_predictor.head_bias
    noise = drawn = None
    if config.exploration:
        noise = (2 * searchable.draws(V) - 1) * config.exploration
        noise = noise.to(bias.device, bias.dtype, non_blocking=True)
    if config.mask == "ring":
        drawn = searchable.kernel_predictor.draws(V).to(bias.device, non_blocking=True)
    if not config.compile:
        return _padded(searchable, noise, drawn, args, kwargs)
    graphs = bias.is_cuda
    if searchable.compiled is None:
        # The operators make tables in their first call and keep them, which nothing may do that is
        # first called where a CUDA graph has its memory: PyTorch stops there.
        with torch.no_grad():
            _kernels(searchable, noise, drawn)
        searchable.compiled = torch.compile(_padded, mode="reduce-overhead" if graphs else None)
    given = searchable.compiled(searchable, noise, drawn, args, kwargs)
    # The next step writes a CUDA graph's outputs anew, which `on_step` may have kept.
    return tree_map_only(Tensor, torch.clone, given) if graphs else given


def _padded(
    searchable: "SearchableCNN",
    noise: Tensor | None,
    drawn: Tensor | None,
    args: tuple,
    kwargs: dict[str, Any],
) -> tuple[Any, Tensor]:
    kernels, learned = _kernels(searchable, noise, drawn)
    with searchable.kernels_of(kernels):
        return network(searchable, args, kwargs), learned


def _kernels(
    searchable: "SearchableCNN", noise: Tensor | None, drawn: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    padding = searchable.padding
    learned = soft_sizes = padding.expand(searchable.size_predictor())
    if noise is not None:
        explored = learned + padding.expand(noise)
        soft_sizes = explored.clamp(padding.smallest, padding.largest)
    if drawn is not None:
        sizes, drawn = padding.above(soft_sizes), padding.expand(drawn)
    else:
        sizes = padding.nearest(soft_sizes)
    return searchable.kernel_predictor.padded(soft_sizes, sizes, padding, drawn), learned
