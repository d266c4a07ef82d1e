"""The picture of the README and the site: sizes that searches found, from their committed rows."""

import json
from pathlib import Path

from effconv_core import SizePlan, figures
from matplotlib.figure import Figure

from tools.reproduce.pictures import named
from tools.support.rows import read_rows

ROWS = Path("results/studies/choice/rows.jsonl")
PICTURES = Path("docs/figures")
SPACE, SETTINGS, ORIGINAL = "seq196", "fa00d40", 5
"""Searches on MNIST as a sequence of 196 steps, by a network whose sizes are all 5."""


def found_plans() -> dict[str, SizePlan]:
    """Return title to plan: the original sizes, then what each search found."""
    rows = [
        row
        for row in read_rows(ROWS)
        if row.get("space") == SPACE and row.get("settings") == SETTINGS
    ]
    plans = {
        f"search with seed {row['seed']}": SizePlan(row["plan"])
        for row in sorted(rows, key=lambda row: row["seed"])
    }
    return {"original sizes": SizePlan(dict.fromkeys(rows[0]["plan"], ORIGINAL)), **plans}


def front_picture() -> Path:
    """Return the picture's path; its name changes with the plans that it shows."""
    sizes = {title: plan.sizes for title, plan in found_plans().items()}
    return PICTURES / named("sizes-sequence", json.dumps(sizes))


def draw_front_picture() -> Figure:
    """Draw the found sizes beside the original ones."""
    figure = figures.draw_sizes(found_plans())
    (axes,) = figure.axes
    axes.set_title("five searches, MNIST as a sequence:\n6 to 7 points better than sizes of 5")
    axes.set_xlabel("layer")
    axes.set_ylabel("kernel size (steps)")
    axes.set_ylim(0, 11)  # leaves room for the legend
    axes.tick_params(axis="x", rotation=0)
    figure.set_size_inches(5, 3.4)  # its text can be read at the width of a telephone
    return figure
