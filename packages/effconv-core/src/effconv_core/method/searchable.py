"""`SearchableCNN`: any network, with predicted kernels in some of its convolutions."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from effconv_core.config import SearchConfig
from effconv_core.cost.accounting import Accounting
from effconv_core.cost.base import TapCost
from effconv_core.cost.budget import Budgets, Constraint
from effconv_core.evidence import Evidence
from effconv_core.layers.contract import Batch
from effconv_core.layers.conv import conv_of, kernels_like, predicted, take_places
from effconv_core.layers.copying import copy_network
from effconv_core.layers.inputs import in_float32
from effconv_core.method.forward import DrawnSizes, StaticForward, draw_sizes
from effconv_core.method.found import check_found
from effconv_core.method.kernel_predictor import kernel_predictor
from effconv_core.method.size_predictor import SizePredictor
from effconv_core.method.static_shapes import Padding, check_grid
from effconv_core.plan import Size, SizePlan
from effconv_core.rng import Draws
from effconv_core.scalars import plain
from effconv_core.space.search_space import flat, in_words
from effconv_core.space.selection import LayerFilter, Ranges, choose, size_space
from effconv_core.version import core_version


class SearchableCNN(nn.Module):
    """A copy of a network whose searched convolutions use predicted kernels (EffConv Fig. 1).

    Each forward pass predicts the soft sizes, rounds them, makes the masked kernels, and runs the
    network on them. The searched layers' own weights are not used.

    Args:
        model: any network with convolutions; it is copied, not changed.
        config: settings; the paper's by default.
        searched: which convolutions are searched, see `searched_layers`.
        allowed: the sizes that layers may have: one `range` for all, or a range for each name
            pattern, of which a later one wins. The default is 1 to the config's largest, or to
            the layer's own size if that is larger. `range(1, 8, 2)` allows only odd sizes.
        tie: groups of layers that share their size, each a name pattern or a list of them.
        per_axis: whether kernels may be rectangular: each axis then has its own size, which Eq. 6
            takes as the mask's width along it, and a plan holds a tuple for each layer.
        example: an input, a tuple of arguments or a dict of keyword arguments, on which the CNNs of
            two plans are checked to be the network that is searched; None leaves that to `search`.

    Attributes:
        layers: names of the searched layers.
        original_sizes: layer name to the size of the network's own kernel.
        left_alone: names of the skipped convolutions, each with the reason.
        cost: the cost of sizes in parameters.
        space: the search space. It has S sizes, layer after layer: one for each of L layers, or
            one for each axis of each.
        soft_sizes: `(S,)`, those of the last forward pass, None before it.
        sizes: the rounded soft sizes, as `plan()` would return them. With padded shapes, reading
            them waits for the device.

    Raises:
        TypeError: if the model is not a module, the config not a `SearchConfig` or an allowed
            range not a `range`.
        ValueError: if no layer can be searched, a pattern matches none, a tensor of the model has
            no values yet, or a layer cannot be padded.

    Examples:
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
        allowed: Ranges | None = None,
        tie: Iterable[str | Iterable[str]] = (),
        per_axis: bool = False,
        example: Any = None,
    ) -> None:
        super().__init__()
        config = SearchConfig() if config is None else config
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model is a {type(model).__name__}; pass a torch.nn.Module")
        if not isinstance(config, SearchConfig):
            raise TypeError(
                f"config is {config!r}; pass a SearchConfig, such as recipe('bank') gives"
            )
        self.config = config
        originals, self.left_alone = choose(model, searched, per_axis=per_axis)
        self.space = size_space(
            originals, config.largest, allowed=allowed, tie=tie, per_axis=per_axis
        )
        self.layers = list(originals)
        self.model = copy_network(model)
        modules = dict(self.model.named_modules())
        self.convs = [modules[name] for name in originals]
        take_places({conv: predicted(conv) for conv in self.convs})
        if config.shapes == "padded":
            check_grid(self.convs, self.space)
        self.source = (model,)  # a tuple, so that it is not part of this module
        self.original_sizes = self.space.by_layer(flat(layer.own for layer in self.space.layers))
        self.cost = TapCost(
            tuple(math.prod(layer.channels) for layer in self.space.layers),
            sum(p.numel() for p in self.model.parameters()) if config.count == "model" else 0,
            self.space.factors(),
            "parameters" if config.count == "model" else "parameters of searched kernels",
        )
        self.accounting = Accounting(config, self.space, self.cost)
        generator = torch.Generator().manual_seed(config.seed)
        like = kernels_like(model, originals.values())
        space = self.space.variable_ranges, config, generator, self.space.variable_starts
        with torch.device("cpu"):  # that of the generator, whatever the default device is
            self.size_predictor = SizePredictor(*space).to(like)
            self.kernel_predictor = kernel_predictor(self.space, config, generator).to(like)
            self.padding = Padding(self.space).to(like)
        self.draws = Draws(config.seed, 0)
        self.soft_sizes: Tensor | None = None
        self._sizes: list[int] | None = None
        self.static_forward = StaticForward(
            config, self.size_predictor, self.kernel_predictor, self.padding, self.draws
        )
        if example is not None:
            check_found(self, Batch(example))

    def __getstate__(self) -> dict[str, Any]:
        # The last soft sizes carry a graph, which can neither be copied nor pickled.
        return {**super().__getstate__(), "soft_sizes": None}

    @property
    def sizes(self) -> list[int]:
        """The S soft sizes of the last forward pass, rounded; empty before the first."""
        if self._sizes is None and self.soft_sizes is not None:
            self._sizes = self.rounded(self.soft_sizes)
        return self._sizes or []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network, with its own arguments, on newly predicted kernels.

        In training mode the config's exploration and mask draw the sizes of this pass around the
        soft sizes; in evaluation mode they are `sizes`.

        Raises:
            FloatingPointError: if a soft size is not finite; the message names the layer. With
                padded shapes `sizes` raises it.
        """
        if self.training and self.config.shapes == "padded":
            outputs, self.soft_sizes = self.static_forward(
                self._static_pass, args, kwargs, graph=self.config.compile
            )
            self._sizes = None
            return outputs
        soft_sizes, sizes = self._drawn_sizes()
        if self.config.mask == "ring" and not self.training:
            return self.forward_at(self.sizes, *args, **kwargs)
        with self.kernels_of(self.kernel_predictor(soft_sizes, sizes)):
            return self._run_model(args, kwargs)

    def _static_pass(
        self, noise: Tensor | None, rings: Tensor | None, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[Any, Tensor]:
        """Return outputs and soft sizes of a pass on padded kernels, see `StaticForward`."""
        kernels, learned = self.static_forward.kernels(noise, rings)
        with self.kernels_of(kernels):
            return self._run_model(args, kwargs), learned

    def _drawn_sizes(self) -> DrawnSizes:
        """Draw what a pass has kernels made for; `soft_sizes` and `sizes` become the learned."""
        self.soft_sizes = self.space.expand(self.size_predictor())
        on_host = self.soft_sizes.tolist()
        self._sizes = self._round(on_host)
        if not self.training:
            return DrawnSizes(self.soft_sizes, self._sizes)
        return draw_sizes(
            self.soft_sizes,
            on_host,
            space=self.space,
            padding=self.padding,
            config=self.config,
            draws=self.draws,
        )

    def _run_model(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Run the CNN on the kernels that its layers hold; outputs of autocast are float32."""
        if not self.training or self.config.precision == "float32":
            return self.model(*args, **kwargs)
        # The kernels stay in float32 and are cast where they are used, so that masks, and the sums
        # of their gradients, are not rounded.
        with torch.autocast(self.size_predictor.head_bias.device.type, torch.bfloat16):
            outputs = self.model(*args, **kwargs)
        return in_float32(outputs)

    def forward_at(self, sizes: Sequence[int | Sequence[int]], *args: Any, **kwargs: Any) -> Any:
        """Run the network on the kernels learned so far, at given sizes.

        Args:
            sizes: an allowed size for each of `layers`, such as the values of a plan.
            *args: positional arguments of the network.
            **kwargs: keyword arguments of the network.

        Raises:
            ValueError: if there are too few or too many sizes, or one is not allowed.
        """
        with self.kernels_of(self.kernels_at(sizes)):
            return self.model(*args, **kwargs)

    def kernels_at(self, sizes: Sequence[int | Sequence[int]]) -> list[Tensor]:
        """Return L masked kernels learned so far, `(c_out, c_in / groups, *taps)`, at given sizes.

        Sizes are as in `forward_at`. A Gaussian mask has the width of the soft size where that
        rounds to the given size, as in evaluation, and elsewhere the width of the given size.
        """
        sizes, ranges = [plain(size) for size in flat(sizes)], self.space.ranges
        if not self.space.allows(sizes):
            kinds = " or ".join(sorted({in_words(allowed) for allowed in ranges}))
            raise ValueError(
                f"sizes are {sizes}; pass {len(ranges)} integers {kinds}, one for each size that "
                "is searched, such as plan.values()"
            )
        soft_sizes = [float(size) for size in sizes]
        if self.config.mask == "gaussian":
            learned = self._learned()
            pairs = zip(sizes, learned, self._round(learned), strict=True)
            soft_sizes = [v if size == rounded else float(size) for size, v, rounded in pairs]
        predictor = self.kernel_predictor
        parameter = next(predictor.parameters())
        soft = torch.tensor(soft_sizes, dtype=parameter.dtype, device=parameter.device)
        training = predictor.training
        predictor.eval()  # at whole sizes nothing is drawn
        try:
            return predictor(soft, sizes)
        finally:
            predictor.train(training)

    @contextmanager
    def kernels_of(self, kernels: Sequence[Tensor]) -> Iterator[None]:
        """Set the kernels of the searched layers for the duration of the context."""
        for conv, kernel in zip(self.convs, kernels, strict=True):
            conv.kernel = kernel.to(conv.like)
        try:
            yield
        finally:
            for conv in self.convs:
                conv.end_pass()

    def warm_start(self, plan: Mapping[str, Size], *, example: Any = None) -> nn.Module:
        """Build the plain CNN of a plan with the weights of the search (not in the paper).

        It has the layers that `apply_plan` builds, but the searched layers have the kernels learned
        so far, masked, at the planned sizes (`kernels_at`), and all else is as trained in the
        search. So in evaluation its output is that of `forward_at(plan.values())`.

        Args:
            plan: the result of a search with this network, or other allowed sizes of its layers.
            example: as for `SearchableCNN`, on which this plan is checked; None checks nothing.

        Raises:
            ValueError: if the plan has other layers, or a size is not allowed.
            TypeError: if a size is not an integer.
        """
        sizes = SizePlan(dict(plan)).sizes
        if sizes.keys() != set(self.layers):
            raise ValueError(
                f"the plan has the layers {list(sizes)}, and searched were {self.layers}; pass a "
                "plan of this search"
            )
        with torch.no_grad():
            kernels = self.kernels_at([sizes[name] for name in self.layers])
        if example is not None:
            check_found(self, Batch(example), [flat(sizes[name] for name in self.layers)])
        cnn = copy_network(self.model)
        modules = dict(cnn.named_modules())
        pairs = [(modules[n], kernel) for n, kernel in zip(self.layers, kernels, strict=True)]
        take_places({conv: conv_of(conv, k.to(conv.like), conv.bias) for conv, k in pairs})
        return cnn

    def _learned(self) -> list[float]:
        """Return the S soft sizes learned so far, on the host."""
        with torch.no_grad():
            return self.space.expand(self.size_predictor()).tolist()

    def rounded(self, soft_sizes: Tensor) -> list[int]:
        """Round soft sizes `(S,)` to S allowed ones (Eq. 2); waits for the device.

        Raises:
            FloatingPointError: if one is not finite; the message names the layer.
        """
        return self._round(soft_sizes.tolist())

    def _round(self, soft_sizes: list[float]) -> list[int]:
        for soft_size, name in zip(soft_sizes, self.space.entry_names(), strict=True):
            if not math.isfinite(soft_size):
                raise FloatingPointError(
                    f"soft size of layer {name!r} is {soft_size}; the loss or a gradient was not "
                    "finite in an earlier step, so lower the learning rates or check the data"
                )
        return self.space.rounded(soft_sizes)

    def constraints(self, budget: Budgets) -> list[Constraint]:
        """Return the budgets with what sizes cost in each; a counter is asked once."""
        return self.accounting.constraints(self, budget)

    bounds = constraints  # its name before 0.4.0

    def budget_loss(self, budget: Budgets) -> Tensor:
        """Return the weighted budget term, a scalar, at the last pass's soft sizes (Eq. 4, 8).

        Args:
            budget: the wanted parameter count, a `Budget`, or several, whose terms add up.

        Raises:
            ValueError: before the first forward pass.
        """
        if self.soft_sizes is None:
            raise ValueError(
                "there are no soft sizes yet, because they are those of the last forward pass; run "
                "the network on a batch before asking for the budget's loss"
            )
        sizes = self.padding.nearest(self.soft_sizes)
        return self.accounting.loss(self.constraints(budget), self.soft_sizes, sizes)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return up to three groups for one optimizer: size predictor, kernel predictor, CNN."""
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

    def nearest_sizes(self, soft_sizes: Sequence[float], budget: Budgets) -> list[int]:
        """Return the S allowed sizes nearest to soft sizes that meet the budget.

        Args:
            soft_sizes: S soft sizes v.
            budget: as for `plan`.

        Raises:
            ValueError: if the budget cannot be met; the message gives the feasible range.
        """
        return self.accounting.nearest(self.constraints(budget), soft_sizes)

    def plan(self, budget: Budgets | None = None) -> SizePlan:
        """Return the plan that the size predictor has learned so far (Algorithm 1, line 9).

        Args:
            budget: if given, the plan costs this within the config's tolerance: if the rounded
                sizes do not, the nearest plan that does is returned (see `SizePlan.adjusted`).

        Raises:
            ValueError: if the budget cannot be met.
        """
        soft_sizes = self._learned()
        sizes = self._round(soft_sizes)
        if budget is not None:
            sizes = self.nearest_sizes(soft_sizes, budget)
        return self.plan_of(sizes, soft_sizes, budget)

    def plan_of(
        self,
        sizes: Sequence[int],
        soft_sizes: Sequence[float],
        budget: Budgets | None,
        evidence: Evidence | None = None,
    ) -> SizePlan:
        """Build the plan of S sizes and the S soft sizes that they come from."""
        constraints = [] if budget is None else self.constraints(budget)
        rounded = self._round(soft_sizes)
        plain = [c.budget.amount for c in constraints if c.budget.counter is None]
        return SizePlan(
            self.space.by_layer(sizes),
            self.space.by_layer(soft_sizes),
            self.cost(sizes),
            plain[0] if plain else None,
            {
                layer.name: (layer.allowed[0], layer.allowed[-1], layer.allowed.step)
                for layer in self.space.layers
            },
            tuple(c.record(cost=c.cost(sizes), rounded=c.cost(rounded)) for c in constraints),
            type(self.model).__name__,
            {"effconv-core": core_version(), "torch": torch.__version__},
            evidence,
            self.accounting.filled_in(constraints, soft_sizes) if constraints else None,
        )
