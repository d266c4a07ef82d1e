"""The figures of the results page, drawn only from the raw results."""

import hashlib
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from effconv_core import SizePlan, figures
from matplotlib.figure import Figure
from safetensors.torch import load_file

from tools.reproduce.rows import FIGURES, LEARNED, Row, name_of, rows_of
from tools.reproduce.run import run_name
from tools.reproduce.tables import source

Picture = tuple[str, str, Callable[[], Figure]]
"""File name, caption, and drawing function."""


NAMED = re.compile(r"(kernels|plans|accuracy-over)-[\w -]+-[0-9a-f]{12}\.png")
"""Names that `named` gives."""


def named(title: str, source: object) -> str:
    """Name a picture by the hash of its source, so that a page cannot show one of older results."""
    source = source if isinstance(source, bytes) else repr(source).encode()
    return f"{title}-{hashlib.sha256(source).hexdigest()[:12]}.png"


def pictures_of(name: str, scale: str, rows: list[dict[str, Any]], folder: Path) -> list[Picture]:
    """Return the pictures of a table or figure, from all results of a scale.

    Args:
        name: name of the table or figure; tables have no pictures.
        scale: scale of the results.
        rows: the results, of CIFAR-10.
        folder: folder of the raw results, which holds the kernels.
    """
    if name == "figure2":
        return [
            *size_pictures(scale, rows),
            *kernel_pictures(folder, "cifar10", scale, rows),
        ]
    return list(course_pictures(scale, rows)) if name == "figure3" else []


def shown(name: str, pictures: Sequence[Picture], place: str = "") -> list[str]:
    """Return the lines that show the pictures of a table or figure with their captions.

    Args:
        name: name of the table or figure.
        pictures: what is drawn.
        place: prefix of each name.
    """
    if name in FIGURES and not pictures:
        return ["Not drawn yet: kernels take a run that kept them, a course two points.", ""]
    lines = [
        (f"![{caption}]({place}{file})", "", f"{caption}.", "") for file, caption, _ in pictures
    ]
    return [line for each in lines for line in each]


def size_pictures(scale: str, rows: list[dict[str, Any]]) -> Iterator[Picture]:
    """Yield the sizes of each network of Figure 2 along the network, those of all seeds."""
    for wanted in rows_of("figure2", scale):
        own = [result for result in rows if Row(**result["row"]) == wanted]
        plans = {f"seed {result['seed']}": result["sizes"] for result in own}
        if plans:
            yield (
                named(f"plans-{scale}-{wanted.sizes}", sorted(plans.items())),
                f"Sizes of {name_of(wanted)} of {wanted.budget / 1e6:.2f} M along the network, "
                f"{source(wanted.sizes)}, scale {scale}",
                lambda plans=plans: figures.draw_sizes(
                    {title: SizePlan(sizes) for title, sizes in plans.items()}
                ),
            )


def kernel_pictures(
    folder: Path, data: str, scale: str, rows: list[dict[str, Any]]
) -> Iterator[Picture]:
    """Yield the kernels of each trained network of Figure 2, of its first seed."""
    for wanted in rows_of("figure2", scale):
        for result in rows:
            run = run_name(Row(**result["row"]), result["seed"])
            place = folder / "kernels" / f"{data}-{scale}" / f"{run}.safetensors"
            if Row(**result["row"]) == wanted and place.exists():
                yield (
                    named(f"kernels-{scale}-{wanted.sizes}", place.read_bytes()),
                    f"Kernels of {name_of(wanted)} of {wanted.budget / 1e6:.2f} M, sizes "
                    f"{source(wanted.sizes)}, seed {result['seed']}, scale {scale}, after "
                    "training: a row a layer, the first input channel of ten outputs",
                    lambda place=place, result=result: _kernels(place, list(result["sizes"])),
                )
                break


def _kernels(place: Path, layers: list[str]) -> Figure:
    kernels = load_file(place)
    return figures.draw_kernels({layer: kernels[layer] for layer in layers})


def course_pictures(scale: str, rows: list[dict[str, Any]]) -> Iterator[Picture]:
    """Yield accuracy and time over depth and over budget, if there are two points or more."""
    figure3 = set(rows_of("figure3", scale))
    rows = [row for row in rows if Row(**row["row"]) in figure3]
    for title, x, of in (
        ("budget", lambda row: row["row"]["budget"] / 1e6, _at_depth_20),
        ("depth", lambda row: int(re.search(r"resnet(\d+)", row["row"]["model"])[1]), _at_one_cost),
    ):
        points = defaultdict(list)
        for row in of(rows):
            values = row["accuracy"], row["seconds_per_epoch"]
            points[row["row"]["sizes"], x(row)].append(values)
        if len({place for _, place in points}) > 1:
            label = "parameters, M" if title == "budget" else "depth"
            yield (
                named(f"accuracy-over-{title}-{scale}", sorted(points.items())),
                f"Accuracy (solid) and seconds an epoch (dashed) over {title}, scale {scale}",
                lambda points=dict(points), label=label: _course(points, label),
            )


def _at_depth_20(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["row"]["model"] == "cifar_resnet20"]


def _at_one_cost(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    deep = [row["row"]["budget"] for row in rows if row["row"]["model"] != "cifar_resnet20"]
    return [
        row for row in rows if row["row"]["budget"] in deep[:1] and row["row"]["model"] in LEARNED
    ]


def _course(points: dict[tuple[str, float], list[tuple[float, float]]], label: str) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    seconds = axes.twinx()
    for kind in sorted({kind for kind, _ in points}):
        places = sorted(place for own, place in points if own == kind)
        runs = [points[kind, place] for place in places]
        accuracies = [[100 * accuracy for accuracy, _ in own] for own in runs]
        spreads = [statistics.stdev(own) if len(own) > 1 else 0 for own in accuracies]
        means = [statistics.mean(own) for own in accuracies]
        (line,) = axes.plot(places, means, marker="o", label=kind)
        axes.errorbar(places, means, spreads, capsize=3, color=line.get_color(), linestyle="")
        times = [statistics.mean(time for _, time in own) for own in runs]
        seconds.plot(places, times, "--", marker="x", color=line.get_color())
    axes.set(xlabel=label, ylabel="test accuracy, %")
    seconds.set_ylabel("seconds an epoch (dashed)")
    axes.legend(title="sizes")
    return figure
