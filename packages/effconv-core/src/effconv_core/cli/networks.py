"""The networks of a run: on their device, and with the sizes of a plan."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from effconv_core.distributed.process_group import Ranks
from effconv_core.plan import Size, apply_plan
from effconv_core.runs.options import RunOptions


def placed(model: nn.Module, options: RunOptions, ranks: Ranks) -> nn.Module:
    """Move a network to its device, in channels-last format where possible."""
    model = _channels_last(model.to(ranks.device))
    if options.sync_batchnorm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model, ranks.group)
    return model


def fresh_cnn(model: nn.Module, sizes: Mapping[str, Size], options: RunOptions) -> nn.Module:
    """Build the plain CNN of given sizes, with initial values drawn from the seed."""
    generator = torch.Generator().manual_seed(options.seed)
    return _channels_last(apply_plan(model, sizes, generator=generator))


def _channels_last(model: nn.Module) -> nn.Module:
    flat = all(parameter.dim() < 5 for parameter in model.parameters())
    return model.to(memory_format=torch.channels_last) if flat else model


def original_sizes(model: nn.Module, layers: Iterable[str]) -> dict[str, Size]:
    """Return the sizes that layers have in the original network."""
    kernels = {name: model.get_submodule(name).kernel_size for name in layers}
    return {n: k[0] if len(set(k)) == 1 else tuple(k) for n, k in kernels.items()}
