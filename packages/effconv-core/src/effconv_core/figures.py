"""Figures of plans, search trajectories and kernels; needs `pip install effconv-core[cli]`."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from effconv_core.engine.frontier import Frontier
from effconv_core.engine.search import SearchStep
from effconv_core.io.atomic import written_whole
from effconv_core.io.terminal import printable
from effconv_core.layers.own_forward import CLASSES
from effconv_core.plan import SizePlan

try:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "effconv_core.figures needs matplotlib; pip install 'effconv-core[cli]'",
        name="matplotlib",
    ) from None

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "draw_course",
    "draw_frontier",
    "draw_kernels",
    "draw_sizes",
    "kernels_of",
    "save_figure",
]

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
FORMATS = (".png", ".svg")
MOST_NAMES, MOST_BARS = 200, 1000  # of a picture of sizes
WIDEST = 65.0  # inches
LONGEST = 60  # characters of a name


def draw_sizes(plans: Mapping[str, SizePlan], axes: "Axes | None" = None) -> Figure:
    """Draw the sizes of one plan along the network, or of several side by side.

    Soft sizes are dots. A layer with a size for each axis has a bar for each. Of more than 200
    bars some are named, and of more than 1,000 the tops are one line, so that it stays a picture.

    Args:
        plans: title to plan. Layers are those of the first, then others in their order.
        axes: where to draw; None makes a new figure.

    Raises:
        ValueError: if there is no plan.
    """
    if not plans:
        raise ValueError("there is no plan to draw; pass at least one")
    bars = {title: _by_bar(plan, plan.sizes) for title, plan in plans.items()}
    places = {name: i for i, name in enumerate(dict.fromkeys(n for b in bars.values() for n in b))}
    axes = _axes(axes, width=min(max(6.0, 0.25 * len(places) * (1 + 0.3 * len(plans))), WIDEST))
    width = 0.8 / len(plans)
    for number, (title, plan) in enumerate(plans.items()):
        shift = (number - (len(plans) - 1) / 2) * width
        own = [places[name] + shift for name in bars[title]]
        colour = COLOURS[number % len(COLOURS)]
        sizes = list(bars[title].values())
        label = _short(title)
        if len(places) > MOST_BARS:
            axes.plot(own, sizes, color=colour, linewidth=0.5, label=label)
        else:
            axes.bar(own, sizes, width, color=colour, label=label)
        if plan.soft_sizes:
            soft = list(_by_bar(plan, plan.soft_sizes).values())
            label = "soft size" if number == len(plans) - 1 else None
            axes.plot(own, soft, "k.", markersize=4, label=label)
    every = -(-len(places) // MOST_NAMES)
    names = [_short(name) for name in list(places)[::every]]
    axes.set_xticks(range(0, len(places), every), names, rotation=90, fontsize=7, parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="kernel sizes", ylabel="size (pixels)")
    _add_legend(axes, fontsize=8, loc="best" if len(places) <= MOST_BARS else "upper right")
    return axes.figure


def _add_legend(axes: "Axes", **options: Any) -> None:
    for text in axes.legend(**options).get_texts():
        text.set_parse_math(False)  # names are not formulas


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}...{name[-LONGEST // 2 :]}"


def _by_bar(plan: SizePlan, sizes: Mapping[str, Any]) -> dict[str, float]:
    bars = {}
    for name in plan:
        size = sizes[name]
        if isinstance(size, tuple):
            bars |= {f"{name} axis {axis}": number for axis, number in enumerate(size)}
        else:
            bars[name] = size
    return bars


def draw_course(
    soft_sizes: Sequence[SearchStep] | Sequence[Sequence[float]] | np.ndarray,
    names: Iterable[str],
    axes: "Axes | None" = None,
) -> Figure:
    """Draw the soft sizes over the steps of a search.

    Args:
        soft_sizes: the steps that `search` passed to `on_step`, or `(steps, S)` numbers.
        names: the plan of the search, or S labels.
        axes: where to draw; None makes a new figure.

    Raises:
        ValueError: if there is no step, or the numbers of names and soft sizes differ.
    """
    rows = np.array(
        [row.soft_sizes.tolist() if isinstance(row, SearchStep) else row for row in soft_sizes],
        dtype=float,
    )
    names = list(_by_bar(names, names.sizes) if isinstance(names, SizePlan) else names)
    if rows.ndim != 2 or rows.shape[1] != len(names):
        raise ValueError(
            f"soft sizes are {rows.shape} and there are {len(names)} names; pass a row for each "
            "step, with a number for each name"
        )
    axes = _axes(axes, width=7.0)
    for name, course in zip(names, rows.T, strict=True):
        axes.plot(np.arange(1, len(rows) + 1), course, label=_short(name), linewidth=1)
    axes.set(title="soft sizes during the search", xlabel="step", ylabel="soft size (pixels)")
    if len(names) <= MOST_NAMES:
        _add_legend(axes, fontsize=5, ncols=2)
    return axes.figure


def kernels_of(cnn: nn.Module, layers: Iterable[str]) -> dict[str, Tensor]:
    """Return the kernels of layers of a plain CNN, such as one of `apply_plan`.

    Args:
        cnn: the network.
        layers: names, as in a plan.

    Returns:
        Layer name to `(c_out, c_in / groups, *taps)`.

    Raises:
        ValueError: if one is not a convolution of the network.
    """
    modules, kernels = dict(cnn.named_modules()), {}
    for name in layers:
        # An even kernel with a stride is a Sequential of padding and a convolution.
        inner = modules[name].modules() if name in modules else ()
        convs = [module for module in inner if type(module) in CLASSES.values()]
        if len(convs) != 1:
            raise ValueError(
                f"layer {name!r} is not a convolution of the {type(cnn).__name__}; pass names of a "
                "plan of it"
            )
        kernels[name] = convs[0].weight
    return kernels


def draw_kernels(kernels: Mapping[str, Tensor], *, columns: int = 10) -> Figure:
    """Draw kernels like the paper's Fig. 2: a row for each layer, blue below zero, red above.

    Each is scaled to its greatest absolute value, and pixels have the same size in all.

    Args:
        kernels: layer name to `(c_out, c_in / groups, *taps)`, such as from `kernels_of`, or, for
            a search, `dict(zip(searchable.layers, searchable.kernels_at(plan.values())))`. The
            first input channel of each output is drawn, and of three axes the middle of the first.
        columns: largest number of kernels per layer.

    Raises:
        ValueError: if there is no kernel.
    """
    if not kernels:
        raise ValueError("there is no kernel to draw; pass at least one layer")
    pictures = {
        name: [plane_of(kernel[o, 0]) for o in range(min(columns, len(kernel)))]
        for name, kernel in kernels.items()
    }
    largest = max(max(p.shape) for row in pictures.values() for p in row)
    widest = max(map(len, pictures.values()))
    figure = Figure(figsize=(1.6 + 0.8 * widest, 0.8 * len(pictures)), layout="constrained")
    grid = figure.subplots(len(pictures), widest, squeeze=False)
    for row, (name, own) in zip(grid, pictures.items(), strict=True):
        for cell in row:
            cell.set_axis_off()
        for cell, picture in zip(row, own, strict=False):
            peak = float(np.abs(picture).max()) or 1.0
            cell.imshow(picture, cmap="RdBu_r", vmin=-peak, vmax=peak)
            middle_y, middle_x = ((n - 1) / 2 for n in picture.shape)
            cell.set_xlim(middle_x - largest / 2, middle_x + largest / 2)
            cell.set_ylim(middle_y + largest / 2, middle_y - largest / 2)
        size = "x".join(map(str, kernels[name].shape[2:]))
        label = f"{_short(name)}\n{size}"
        beside = {"ha": "right", "va": "center", "transform": row[0].transAxes}
        row[0].text(-0.1, 0.5, label, parse_math=False, **beside)
    return figure


def plane_of(kernel: Tensor) -> np.ndarray:
    """Return one kernel as a 2-d array; of three axes the middle of the first is taken."""
    values = kernel.detach().float().cpu().numpy()
    if values.ndim == 3:
        return values[values.shape[0] // 2]
    return values[None] if values.ndim == 1 else values


def draw_frontier(frontier: Frontier, axes: "Axes | None" = None) -> Figure:
    """Draw the loss of the points of a frontier over their cost, and that of the original sizes.

    Args:
        frontier: the points.
        axes: where to draw; None makes a new figure.
    """
    axes = _axes(axes, width=6.0)
    costs, losses = zip(*((p.cost, p.loss) for p in frontier.points), strict=True)
    axes.plot(costs, losses, "o-", color=COLOURS[0], label="plans")
    knee, own = frontier.knee, frontier.original
    axes.plot(knee.cost, knee.loss, "o", color=COLOURS[2], markersize=10, label="knee")
    axes.plot(own.cost, own.loss, "s", color=COLOURS[1], label="the network's own sizes")
    axes.set(xscale="log", xlabel=frontier.counts, ylabel=f"loss after {frontier.steps} steps")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("{x:,.0f}")
    axes.tick_params(axis="x", which="both", rotation=45, labelsize=8)
    _add_legend(axes, fontsize=8)
    return axes.figure


def check_format(path: Path) -> None:
    """Raise unless a figure's name ends in .png or .svg."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"figure {path} is to be {path.suffix!r}; name a {' or '.join(FORMATS)}")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG or SVG, atomically.

    Raises:
        ValueError: if the name ends in neither.
    """
    path = Path(path)
    check_format(path)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=120)


def _axes(axes: "Axes | None", width: float) -> "Axes":
    return Figure(figsize=(width, 4), layout="constrained").subplots() if axes is None else axes
