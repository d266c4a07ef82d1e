"""Formulas of the site: a fenced block `math` becomes an SVG, and no page loads a script for it."""

import html
import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image


def formula(source: str, *_: Any, **__: Any) -> str:
    """Return the SVG of a formula in the TeX that matplotlib reads, in the colour of the text.

    Superfences calls it with the block's language, class, options and Markdown object, too.

    Raises:
        ValueError: if the formula cannot be read.
    """
    drawn = io.StringIO()
    settings = {"svg.hashsalt": "effconv", "svg.fonttype": "path", "mathtext.fontset": "stix"}
    settings["savefig.facecolor"] = "none"  # a box of white would hide it on a dark page
    with mpl.rc_context(settings):
        math_to_image(f"${source.strip()}$", drawn, FontProperties(size=14), format="svg")
    svg = drawn.getvalue()[drawn.getvalue().index("<svg") :]
    for noise in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->"):
        svg = re.sub(noise, "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(figure|axes|patch|text)_\d+"', "", svg)  # ids of glyphs may stay
    svg = svg.replace("<svg ", '<svg fill="currentColor" ', 1)
    return f'<p class="formula" role="img" aria-label="{html.escape(source.strip())}">{svg}</p>'
