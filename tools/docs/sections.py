"""Check that sections of documents that state figures link to raw results.

The values themselves are not checked: many are means or ratios of raw ones. Generated pages are
compared with their generators, which this cannot replace.
"""

import re
from collections.abc import Iterator
from pathlib import Path

# What a measurement looks like: a decimal fraction, a percentage, or a number with a unit. Versions
# have two dots; parameters, in millions, are counted, not measured.
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
    """Yield heading and prose of each section, without code blocks."""
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
    """Return the headings of sections that state figures without a link to existing raw results.

    A link in a section's prose covers all of it, one in a list item covers that item.
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
    """Return whether a text links to raw results that exist."""
    targets = [document.parent / target for target in LINK.findall(text)]
    return any("results" in target.parts and target.exists() for target in targets)
