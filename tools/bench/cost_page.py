"""The page on the scaling of searches, made only from the raw results."""

import json
import statistics
from pathlib import Path
from typing import Any

from tools.support.markdown import render

PAGE = Path("docs/cost.md")
COST = Path("results/cost.json")
STREAM = Path("results/stream.json")
UNITS = {
    "step": "a step",
    "layers": "a searched layer",
    "multiplications": "a million multiplications of the CNN, forward",
    "values": "a million values that modules give",
    "gru": "a million multiplications of the GRUs",
    "projection": "a million multiplications of the projections",
    "parameters": "a million parameters, for the optimizer",
}
COUNTED = ("step", "layers")
GROUPS = {
    "plain": "plain steps",
    "paper": "search steps, paper's recipe",
    "default": "search steps, recipe bank",
}


def cost_page(raw: Path = COST, streamed: Path = STREAM) -> str:
    """Return the page.

    Args:
        raw: what `bench:cost` wrote.
        streamed: what `bench:stream` wrote; it may be missing.

    Raises:
        FileNotFoundError: if `raw` is missing.
    """
    cost = json.loads(raw.read_text(encoding="utf-8"))
    units, off = cost["seconds_per_unit"], cost["predicted_over_measured_less_1"]
    stream = json.loads(streamed.read_text(encoding="utf-8")) if streamed.exists() else None
    kinds = ("fitted", "held out")
    return render(
        "cost.md.jinja",
        **cost,
        COST=COST,
        STREAM=STREAM,
        stream=stream,
        units=[
            (f"{before}{UNITS[term]}", _milliseconds(term, seconds))
            for kind, before in (("step", ""), ("second rank", "the second rank: "))
            for term, seconds in units[kind].items()
        ],
        errors=[
            (title, *(_errors(off[f"{kind}, {group}"]) for kind in kinds))
            for group, title in GROUPS.items()
        ],
        unseen=[_named(row["point"]) for row in cost["points"]["held out"]],
        forecast=[
            (
                row["model"].removeprefix("torchvision:"),
                row["recipe"],
                row["epochs"],
                f"{row['search_step_over_plain_step_on_1']:.2f}",
                f"{row['hours_on_1']:,.0f}",
                f"{row['search_step_over_plain_step_on_8']:.2f}",
                f"{row['hours_on_8']:,.0f}",
            )
            for row in cost["imagenet_1k"]
        ],
        memory=[
            (rank, *(f"{mib:.0f}" for mib in tenths))
            for rank, tenths in enumerate(stream["tenths_mib"] if stream else [])
        ],
    )


def _milliseconds(term: str, seconds: float) -> str:
    return f"{1000 * seconds * (1 if term in COUNTED else 1e6):.3g}"


def _errors(off: list[float]) -> str:
    return f"{statistics.median(map(abs, off)):.1%}, {max(off, key=abs):+.1%}"


def _named(point: dict[str, Any]) -> str:
    name = point["model"].removeprefix("torchvision:")
    if name == "stack":
        name = f"{point['layers']} layers of {point['channels']} channels and size {point['size']}"
    return f"{name} at {point['image']} pixels"
