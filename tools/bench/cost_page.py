"""The page of what searches cost as they grow, made from the raw results alone."""

import json
import statistics
from pathlib import Path
from typing import Any

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
    "default": "search steps, default recipe",
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
    environment, units = cost["environment"], cost["seconds_per_unit"]
    fitted = len(cost["points"]["fitted"])
    parts = [
        "# What a search costs, and would cost",
        "",
        f"Search steps and plain training steps were timed at {fitted} points where one thing at a "
        "time changes, and seconds for each unit of a few terms fitted to them, none negative; "
        f"[what the terms are](scaling.md#what-it-costs). [Raw](../{COST}).",
        "",
        "| for | ms |",
        "|---|---|",
    ]
    for term, seconds in units["step"].items():
        parts.append(f"| {UNITS[term]} | {_milliseconds(term, seconds)} |")
    for term, seconds in units["second rank"].items():
        parts.append(f"| the second rank: {UNITS[term]} | {_milliseconds(term, seconds)} |")
    parts += [
        "",
        "A term of 0 was lost in the others at the sizes timed. How far the model is off:",
        "",
        "| steps | fitted: median, largest error | networks it had not seen: median, largest |",
        "|---|---|---|",
    ]
    off = cost["predicted_over_measured_less_1"]
    for group, title in GROUPS.items():
        cells = " | ".join(_errors(off[f"{kind}, {group}"]) for kind in ("fitted", "held out"))
        parts.append(f"| {title} | {cells} |")
    unseen = [_named(row["point"]) for row in cost["points"]["held out"]]
    parts += [
        "",
        f"Those networks: {', '.join(dict.fromkeys(unseen))}.",
        "",
        "## ImageNet-1k",
        "",
        "What the model says of a search at 224x224 pixels with batches of 256, on such a machine; "
        "it was not run. The forecast stretches the fit far beyond its points, and a GPU has other "
        f"seconds for each unit. [Raw](../{COST}).",
        "",
        "| network | recipe | epochs | over a plain step | hours, 1 rank | over a plain step, "
        "8 ranks | hours, 8 ranks |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in cost["imagenet_1k"]:
        cells = (
            row["model"].removeprefix("torchvision:"),
            row["recipe"],
            str(row["epochs"]),
            f"{row['search_step_over_plain_step_on_1']:.2f}",
            f"{row['hours_on_1']:,.0f}",
            f"{row['search_step_over_plain_step_on_8']:.2f}",
            f"{row['hours_on_8']:,.0f}",
        )
        parts.append("| " + " | ".join(cells) + " |")
    parts += [
        "",
        "A rank here is one CPU core of this machine, and two share its memory bus. "
        f"`hatch run bench:cost`, commit {environment['commit']}, {environment['device']}, torch "
        f"{environment['torch']}.",
        "",
        "## A stream of any length",
        "",
    ]
    if streamed.exists():
        parts += _stream(json.loads(streamed.read_text(encoding="utf-8")))
    else:
        parts.append("Not yet measured.")
    return "\n".join([*parts, ""])


def _stream(stream: dict[str, Any]) -> list[str]:
    environment, settings = stream["environment"], stream["settings"]
    parts = [
        f"One epoch of a search over {settings['samples']:,} generated pictures of 32x32, made as "
        f"they are read and never stored, by {len(stream['tenths_mib'])} ranks: "
        f"{stream['images_seen']:,} pictures were seen, {stream['images_seen_once']:,} of them "
        "once. Median memory of each rank with its workers, MiB, in each tenth of the epoch "
        f"([raw](../{STREAM})):",
        "",
        "| rank | " + " | ".join(f"{tenth}" for tenth in range(1, 11)) + " |",
        "|---" * 11 + "|",
    ]
    for rank, tenths in enumerate(stream["tenths_mib"]):
        parts.append(f"| {rank} | " + " | ".join(f"{mib:.0f}" for mib in tenths) + " |")
    return [
        *parts,
        "",
        f"It took {stream['seconds'] / 60:.0f} minutes with other work beside it, so that is no "
        f"figure of speed. `hatch run bench:stream`, commit {environment['commit']}, "
        f"{environment['device']}, torch {environment['torch']}.",
    ]


def _milliseconds(term: str, seconds: float) -> str:
    return f"{1000 * seconds * (1 if term in COUNTED else 1e6):.3g}"


def _errors(off: list[float]) -> str:
    return f"{statistics.median(map(abs, off)):.1%}, {max(off, key=abs):+.1%}"


def _named(point: dict[str, Any]) -> str:
    name = point["model"].removeprefix("torchvision:")
    if name == "stack":
        name = f"{point['layers']} layers of {point['channels']} channels and size {point['size']}"
    return f"{name} at {point['image']} pixels"
