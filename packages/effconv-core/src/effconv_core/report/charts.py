"""Geometry and labels of the report's charts; the template draws them as SVG.

A chart is 360 units wide, the width of a phone, so that its text keeps its size there.
"""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from effconv_core.figures import plane_of

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 48, 350, 10, 172
MOST_POINTS = 120
POSITIVE, NEGATIVE, MAGNITUDE = (214, 69, 65), (52, 120, 214), (139, 98, 214)
PICTURES = 8  # number of kernels shown per layer


@dataclass(frozen=True)
class Chart:
    """A chart: positions of tick labels, lines, dots at their ends, and a text for each."""

    title: str
    x_title: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[dict[str, Any]]
    level: dict[str, Any] | None


def line_chart(
    title: str,
    series: Mapping[str, Points],
    *,
    form: Callable[[float], str],
    x_title: str = "step",
    level: tuple[str, float] | None = None,
) -> Chart | None:
    """Lay out lines over steps; return None if no series has a point.

    Args:
        title: title of the chart.
        series: title to (step, value); many points are averaged to at most `MOST_POINTS`.
        form: formats a value.
        x_title: title of the x axis.
        level: title and value of a horizontal reference line.
    """
    series = {name: averaged(points) for name, points in series.items() if points}
    if not series:
        return None
    values = [y for points in series.values() for _, y in points]
    values += [level[1]] if level else []
    y_ticks = _ticks(min(values), max(values), count=4, within=_range_of(form, values))
    steps = [x for points in series.values() for x, _ in points]
    x_ticks = _ticks(0, max(steps), count=5, whole=True)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (RIGHT - LEFT) * x / x_ticks[-1]
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(across, 1), round(BOTTOM - (BOTTOM - TOP) * up, 1)

    lines = []
    for name, points in series.items():
        places = [place(x, y) for x, y in points]
        (_, first), (last_step, last) = points[0], points[-1]
        words = f"{form(first)} at first, {form(last)} at step {last_step:,.0f}"
        end = {"end": places[-1], "bar": None}
        lines.append({"title": name, "words": words, "points": places, **end})
    return Chart(
        title,
        x_title,
        [(place(x, 0)[0], short(x)) for x in x_ticks],
        [(place(0, y)[1], form(y)) for y in y_ticks],
        lines,
        {"title": level[0], "words": form(level[1]), "y": place(0, level[1])[1]} if level else None,
    )


def dot_chart(
    title: str,
    dots: Mapping[str, tuple[float, float]],
    *,
    form: Callable[[float], str],
    bars: Mapping[str, tuple[float, float]],
) -> Chart | None:
    """Lay out a dot for each title, at (cost, value); return None if there are fewer than two.

    Args:
        title: title of the chart.
        dots: title to (cost, value).
        form: formats a value.
        bars: title to the bounds of the value's interval, where they are known.
    """
    if len(dots) < 2:
        return None
    x_ticks = _ticks(*_span([x for x, _ in dots.values()]), count=4)
    bounds = [bound for pair in bars.values() for bound in pair]
    values = [*(y for _, y in dots.values()), *bounds]
    y_ticks = _ticks(*_span(values), count=4, within=_range_of(form, values))

    def across(x: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]), 1)

    def down(y: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]), 1)

    return Chart(
        title,
        "parameters",
        [(across(x), short(x)) for x in x_ticks],
        [(down(y), form(y)) for y in y_ticks],
        [
            {
                "title": name,
                "words": f"{form(y)}{_between(bars.get(name), form)} at {short(x)} parameters",
                "points": [],
                "end": (across(x), down(y)),
                "bar": tuple(map(down, bars[name])) if name in bars else None,
            }
            for name, (x, y) in dots.items()
        ],
        None,
    )


def _between(bounds: tuple[float, float] | None, form: Callable[[float], str]) -> str:
    return "" if bounds is None else f" ({form(bounds[0])} to {form(bounds[1])})"


def small_course(points: Points, largest: float) -> dict[str, Any]:
    """Lay out one soft size over the steps, 100 units wide and 48 high, from 0 to `largest`."""
    points = averaged(points)
    last = points[-1][0]
    places = [
        (round(2 + 92 * x / max(last, 1), 1), round(46 - 44 * max(y, 0) / (largest or 1), 1))
        for x, y in points
    ]
    return {"points": places, "end": places[-1]}


def averaged(points: Points) -> list[tuple[float, float]]:
    """Return at most `MOST_POINTS` points: last step and mean value of equal segments."""
    each = -(-len(points) // MOST_POINTS)
    return [
        (part[-1][0], fmean(y for _, y in part))
        for part in (points[i : i + each] for i in range(0, len(points), each))
    ]


def short(number: float) -> str:
    """Format a count compactly: 9k, 10.5k, 1.2M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:.4g}{letter}"
    return f"{number:.4g}"


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of values, extended by a tenth at either end."""
    low, high = min(values), max(values)
    room = (high - low) / 10 or abs(high) / 20 or 1.0
    return low - room, high + room


def percent(number: float) -> str:
    """Format a value in percent, such as 99.5%."""
    return f"{number:.4g}%"


def _range_of(form: Callable[[float], str], values: Sequence[float]) -> tuple[float, float] | None:
    """Return the range that an axis of percentages must not leave; None where values do."""
    return (0.0, 100.0) if form is percent and min(values) >= 0 and max(values) <= 100 else None


def _ticks(
    low: float,
    high: float,
    *,
    count: int,
    whole: bool = False,
    within: tuple[float, float] | None = None,
) -> list[float]:
    # Ticks of values that differ only in their last digits would fall together.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - abs(low) / 20 - 1e-9, high + abs(high) / 20 + 1e-9
    ticks = MaxNLocator(count, integer=whole).tick_values(low, high)
    if within is not None:
        ticks = sorted({*np.clip(ticks, *within).tolist()})
    return [float(tick) for tick in ticks]


def kernel_pictures(weight: Tensor) -> dict[str, Any]:
    """Draw kernels as PNGs of one pixel per tap, and compute the share of their weight at the rim.

    Zero is transparent, so that it shows the page's own colour, dark or light. For each output the
    first input channel is drawn, scaled to its greatest absolute value.

    Args:
        weight: `(c_out, c_in / groups, *taps)`.

    Returns:
        `height` and `width` in taps, `mean`, the picture of the mean absolute values over all
        kernels, `some`, those of the first `PICTURES` outputs, `count`, how many kernels there are,
        `rim_taps`, the share of the taps at the outermost places, and `rim_weight`, their share of
        the squared weights; None where all are zero, or one is not finite.
    """
    mean = plane_of(weight.abs().mean(dim=(0, 1)))
    squares = weight.double().square().sum(dim=(0, 1)).numpy()
    rim = np.zeros(squares.shape, dtype=bool)
    for axis, taps in enumerate(squares.shape):
        if taps > 1:
            rim |= np.isin(np.indices(squares.shape)[axis], (0, taps - 1))
    rim |= squares.size == 1
    total = float(squares.sum())
    return {
        "height": mean.shape[0],
        "width": mean.shape[1],
        "mean": _png(mean, (MAGNITUDE, MAGNITUDE)),
        "some": [_png(plane_of(kernel[0]), (NEGATIVE, POSITIVE)) for kernel in weight[:PICTURES]],
        "count": weight.shape[0] * weight.shape[1],
        "rim_taps": float(rim.mean()),
        "rim_weight": float(squares[rim].sum()) / total if 0 < total < math.inf else None,
    }


def _png(plane: np.ndarray, colours: tuple[Sequence[int], Sequence[int]]) -> str:
    """Return an image of a plane as a `data:` URL; colours are those below and above zero."""
    plane = np.nan_to_num(plane)
    peak = float(np.abs(plane).max()) or 1.0
    pixels = np.empty((*plane.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(plane[..., None] < 0, *colours)
    pixels[..., 3] = np.rint(np.abs(plane) / peak * 255)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
