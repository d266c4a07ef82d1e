"""Which parts of a document state figures, and whether a raw result stands behind them.

What a figure's value should be is not looked up: many are means or ratios of raw ones. Pages that
are made by a command are compared with what it makes, which this cannot replace.
"""

import re
from collections.abc import Iterator
from pathlib import Path

# What a measurement looks like: a decimal fraction, a percentage, or a number with a unit. Versions
# have two dots, and parameters, in millions, are counted and not measured.
UNITS = "s|ms|µs|points?|times|[MG]i?B|minutes?|hours?|seconds?"
FIGURE = re.compile(
    rf"(?<![\w.])\d[\d,]*(\.\d+(?![\w.]*\.\d)(?!\w)(?! M\b)|\s?%|\s(?:{UNITS})\b)(?!\w)"
)
LINK = re.compile(r"\]\(([^)#\s]+)")
NO_FIGURES = re.compile(
    r"`[^`]*`|\]\([^)]*\)"
    r"|(?:Python |PyTorch |torch |Apache[ -]|compute capability |Section )\d\.\d+"
)
ITEM = re.compile(r"\s*(?:[-*]|\d+\.) ")


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Give heading and prose of each section; code blocks are left out."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    heading, lines = "", []
    for line in text.splitlines():
        if line.startswith("#"):
            yield heading, "\n".join(lines)
            heading, lines = line.lstrip("# "), []
        else:
            lines.append(line)
    yield heading, "\n".join(lines)


def without_results(document: Path) -> list[str]:
    """Give the headings of sections that state figures with no link to existing raw results.

    A link in a section's prose stands behind all of it, one in an item of a list behind that item.
    """
    found = []
    for heading, text in sections(document.read_text(encoding="utf-8")):
        blocks = re.split(r"\n\s*\n|\n(?=[-*] |\d+\. )", text)
        items = [block for block in blocks if ITEM.match(block)]
        prose = "\n\n".join(block for block in blocks if not ITEM.match(block))
        if not _links(prose, document) and any(
            FIGURE.search(NO_FIGURES.sub("", block))
            for block in (prose, *(item for item in items if not _links(item, document)))
        ):
            found.append(heading)
    return found


def _links(text: str, document: Path) -> bool:
    """Tell whether a text links to raw results that exist."""
    targets = [document.parent / target for target in LINK.findall(text)]
    return any("results" in target.parts and target.exists() for target in targets)
