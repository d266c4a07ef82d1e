"""Multiply-accumulates as a function of kernel sizes, by PyTorch's own counter."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effconv_core.cost.base import Searchable, TapCost
from effconv_core.layers.batch_checks import explained_pass
from effconv_core.layers.conv import PredictedConv
from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import copied, run_on


@dataclass(frozen=True, eq=False)
class Macs:
    """Counts the multiply-accumulates of a forward pass, for `Budget`.

    Half of what `torch.utils.flop_counter.FlopCounterMode` counts: products in convolutions and
    matrix multiplications, those on padding too, and no additions of biases.

    Args:
        example: the network's input, on its device: a tensor, a tuple of arguments or a dict of
            keyword arguments. With a batch of one the count is per image.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1))
        >>> cost = Macs(torch.zeros(1, 3, 8, 8))(SearchableCNN(net))
        >>> cost.constant, cost([3])  # 8 * 8 * 9 * 3 * 4, and 8 * 8 * 9 * 4 * 5 more
        (6912, 18432)
    """

    example: Any

    def __call__(self, searchable: Searchable) -> TapCost:
        """Return the cost of a searchable network, in evaluation mode; it is not changed.

        Raises:
            TypeError: if the example has another dtype than the network's parameters.
            ValueError: if it is on another device or has another number of channels.
        """
        network = copy_network(searchable).eval()
        positions: dict[PredictedConv, int] = {}

        def note_positions(conv: PredictedConv, args: Any, named: Any, output: Tensor) -> None:
            # A layer used twice costs twice. A transposed one puts its kernel at each input.
            values, channels = output, conv.out_channels
            if conv.transposed:
                values, channels = next(iter((*args, *named.values()))), conv.in_channels
            positions[conv] = positions.get(conv, 0) + values.numel() // channels

        # Imported here, since it imports Triton, which takes longer than the rest of this package.
        from torch.utils.flop_counter import FlopCounterMode

        for conv in network.convs:
            conv.register_forward_hook(note_positions, with_kwargs=True)
        sizes = network.space.smallest()
        with torch.no_grad(), explained_pass(network.model, self.example):
            kernels = network.kernels_at(sizes)  # the work of the predictors does not count
            with network.kernels_of(kernels), FlopCounterMode(display=False) as counter:
                run_on(network.model, copied(self.example))
        per_tap = tuple(
            c_out * c_in * positions.get(conv, 0)
            for conv, (c_out, c_in) in zip(
                network.convs, (layer.channels for layer in network.space.layers), strict=True
            )
        )
        cost = TapCost(per_tap, 0, searchable.cost.factors, "multiply-accumulates")
        constant = counter.get_total_flops() // 2 - cost(sizes)
        return TapCost(per_tap, constant, cost.factors, cost.counts)
