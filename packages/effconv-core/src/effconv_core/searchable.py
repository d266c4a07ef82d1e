"""`SearchableCNN`: any network, with predicted kernels in some of its convolutions."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effconv_core.budget import (
    ParameterCost,
    check_budget,
    nearest_plan,
    paper_budget_loss,
    smooth_budget_loss,
)
from effconv_core.config import SearchConfig
from effconv_core.conv import PredictedConv2d
from effconv_core.draws import Draws
from effconv_core.kernel_predictor import kernel_predictor
from effconv_core.plan import SizePlan, replace_modules
from effconv_core.size_predictor import SizePredictor

LayerFilter = Callable[[str, nn.Conv2d], bool]


def searched_layers(model: nn.Module, searched: LayerFilter | None = None) -> dict[str, nn.Conv2d]:
    """Give the convolutions whose sizes a search learns, by name.

    Args:
        model: any network.
        searched: tells for a name and an `nn.Conv2d` whether it is searched; when None, every
            ungrouped square zero-padded convolution larger than 1x1 is, but the model's first.

    Raises:
        ValueError: if there is none, or a chosen one is not square or not zero-padded.
    """
    # Subclasses of nn.Conv2d do something of their own in forward, which would be lost.
    convs = [(n, m) for n, m in model.named_modules() if type(m) is nn.Conv2d]
    if searched is None:
        chosen = {n: m for n, m in convs[1:] if _is_plain(m) and m.groups == 1}
        rule = "ungrouped square zero-padded nn.Conv2d larger than 1x1 after the first nn.Conv2d"
    else:
        chosen = {n: m for n, m in convs if searched(n, m)}
        rule = "nn.Conv2d that `searched` accepts"
    if not chosen:
        raise ValueError(
            f"the {type(model).__name__} has no layer to search: none of its {len(convs)} "
            f"nn.Conv2d layer(s) is an {rule}, so pass another model or another `searched`"
        )
    for name, conv in chosen.items():
        if conv.kernel_size[0] != conv.kernel_size[1] or conv.padding_mode != "zeros":
            raise ValueError(
                f"layer {name!r} has kernel size {conv.kernel_size} and padding mode "
                f"{conv.padding_mode!r}; only square zero-padded ones can be searched, "
                "so leave it out"
            )
    return chosen


def _is_plain(conv: nn.Conv2d) -> bool:
    height, width = conv.kernel_size
    return height == width > 1 and conv.padding_mode == "zeros"


class SearchableCNN(nn.Module):
    """A copy of a network whose searched convolutions use predicted kernels (EffConv Fig. 1).

    Each forward pass predicts the soft sizes, rounds them, makes the masked kernels, and runs the
    network on them. The searched layers' own weights are not used.

    Args:
        model: any network with `nn.Conv2d` layers; it is copied, not changed.
        config: settings; the paper's by default.
        searched: which convolutions are searched, see `searched_layers`.

    Attributes:
        layers: names of the searched layers.
        cost: what sizes cost.
        soft_sizes: `(L,)`, those of the last forward pass, None before it.
        sizes: these rounded, what `plan()` would give.

    Raises:
        TypeError: if the model is no module or the config no `SearchConfig`.
        ValueError: if no layer can be searched.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        >>> searchable = SearchableCNN(net)
        >>> searchable(torch.zeros(2, 3, 16, 16)).shape, searchable.sizes
        (torch.Size([2, 8, 14, 14]), [3])
    """

    def __init__(
        self,
        model: nn.Module,
        config: SearchConfig | None = None,
        *,
        searched: LayerFilter | None = None,
    ) -> None:
        super().__init__()
        config = SearchConfig() if config is None else config
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model is a {type(model).__name__}; pass a torch.nn.Module")
        if not isinstance(config, SearchConfig):
            raise TypeError(
                f"config is {config!r}; pass a SearchConfig, such as recipe('default') gives"
            )
        self.config = config
        self.model = copy.deepcopy(model)
        chosen = searched_layers(self.model, searched)
        self.layers = list(chosen)
        channels = [(c.out_channels, c.in_channels // c.groups) for c in chosen.values()]
        per_tap = tuple(c_out * c_in for c_out, c_in in channels)
        replacements = {conv: PredictedConv2d(conv) for conv in chosen.values()}
        replace_modules(self.model, replacements)
        self._convs = list(replacements.values())
        rest = sum(parameter.numel() for parameter in self.model.parameters())
        self.cost = ParameterCost(per_tap, rest if config.count == "model" else 0)

        generator = torch.Generator().manual_seed(config.seed)
        example = next(iter(chosen.values())).weight
        self.size_predictor = SizePredictor(len(channels), config, generator).to(example)
        self.kernel_predictor = kernel_predictor(channels, config, generator).to(example)
        self.draws = Draws(config.seed, 0)
        self.soft_sizes: Tensor | None = None
        self.sizes: list[int] = []

    def __getstate__(self) -> dict[str, Any]:
        # The last soft sizes carry a graph, which can neither be copied nor pickled.
        return {**super().__getstate__(), "soft_sizes": None}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network, with any arguments that it takes, on freshly predicted kernels.

        In training mode the config's exploration and mask draw the sizes of this pass around the
        soft sizes; in evaluation mode they are `sizes`.

        Raises:
            FloatingPointError: if a soft size is not finite; the sentence names the layer.
        """
        self.soft_sizes = self.size_predictor()
        on_host = self.soft_sizes.tolist()
        self.sizes = self._round(on_host)
        soft_sizes, sizes = self.soft_sizes, self.sizes
        if self.training and self.config.exploration:
            noise = (2 * self.draws(len(self.layers)) - 1) * self.config.exploration
            soft_sizes = (soft_sizes + noise.to(soft_sizes)).clamp(1, self.config.largest)
            explored = (v + n for v, n in zip(on_host, noise.tolist(), strict=True))
            on_host = [min(max(v, 1.0), float(self.config.largest)) for v in explored]
            sizes = self._round(on_host)
        if self.config.mask == "ring":
            if not self.training:
                return self.forward_at(self.sizes, *args, **kwargs)
            # The ring between floor(v) and floor(v) + 1 is what is drawn.
            sizes = [min(math.floor(v) + 1, self.config.largest) for v in on_host]
        return self._run(self.kernel_predictor(soft_sizes, sizes), args, kwargs)

    def forward_at(self, sizes: Sequence[int], *args: Any, **kwargs: Any) -> Any:
        """Run the network on the kernels learned so far, at given sizes.

        Args:
            sizes: L integers, one for each of `layers`, from 1 to the config's largest size.
            *args: what the network takes.
            **kwargs: what the network takes.

        Raises:
            ValueError: if there are too few or too many sizes, or one is not such an integer.
        """
        sizes, largest = list(sizes), self.config.largest
        if len(sizes) != len(self.layers) or not all(
            size in range(1, largest + 1) for size in sizes
        ):
            raise ValueError(
                f"sizes are {sizes}; pass {len(self.layers)} integers from 1 to {largest}, one for "
                "each searched layer, such as plan.values()"
            )
        parameter = next(self.kernel_predictor.parameters())
        soft_sizes = torch.tensor(sizes, dtype=parameter.dtype, device=parameter.device)
        return self._run(self.kernel_predictor(soft_sizes, sizes), args, kwargs)

    def _run(self, kernels: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        for conv, kernel in zip(self._convs, kernels, strict=True):
            conv.kernel = kernel
        try:
            return self.model(*args, **kwargs)
        finally:
            for conv in self._convs:
                conv.kernel = None

    def _round(self, soft_sizes: list[float]) -> list[int]:
        for name, soft_size in zip(self.layers, soft_sizes, strict=True):
            if not math.isfinite(soft_size):
                raise FloatingPointError(
                    f"soft size of layer {name!r} is {soft_size}; the loss or a gradient was not "
                    "finite in an earlier step, so lower the learning rates or check the data"
                )
        return [min(max(round(v), 1), self.config.largest) for v in soft_sizes]

    def budget_loss(self, budget: float) -> Tensor:
        """Give the weighted budget term for the soft sizes of the last forward pass (Eq. 4, 8)."""
        form = paper_budget_loss if self.config.budget_form == "paper" else smooth_budget_loss
        return self.config.budget_weight * form(self.cost, self.soft_sizes, budget)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Give three groups for one optimizer: size predictor, kernel predictor, the CNN's rest."""
        config = self.config
        parts = {
            "size_predictor": (self.size_predictor, config.size_lr),
            "kernel_predictor": (self.kernel_predictor, config.kernel_lr),
            "cnn": (self.model, config.cnn_lr),
        }
        return [
            {"name": name, "params": params, "lr": lr, "weight_decay": config.weight_decay}
            for name, (module, lr) in parts.items()
            if (params := list(module.parameters()))
        ]

    def plan(self, budget: float | None = None) -> SizePlan:
        """Give the sizes that the size predictor has learned so far (Algorithm 1, line 9).

        Args:
            budget: when given, the plan costs this within the config's tolerance: where rounding
                leaves it outside, the nearest plan inside is taken (see `SizePlan.adjusted`).

        Raises:
            ValueError: if the budget cannot be met.
        """
        with torch.no_grad():
            soft_sizes = self.size_predictor().tolist()
        sizes = self._round(soft_sizes)
        if budget is not None:
            largest = self.config.largest
            check_budget(self.cost, budget, largest)
            sizes = nearest_plan(
                self.cost, soft_sizes, budget, tolerance=self.config.tolerance, largest=largest
            )
        return SizePlan(
            dict(zip(self.layers, sizes, strict=True)),
            dict(zip(self.layers, soft_sizes, strict=True)),
            self.cost(sizes),
            budget,
        )
