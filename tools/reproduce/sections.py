"""Which parts of a document state figures, and whether a raw result stands behind them."""

import re
from collections.abc import Iterator
from pathlib import Path

# A decimal fraction or a percentage: what a measurement looks like. Versions have two dots.
FIGURE = re.compile(r"(?<![\w.])\d+(\.\d+(?![\w.]*\.\d)|\s?%)(?!\w)")
LINK = re.compile(r"\]\(([^)#\s]+)")


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
    """Give the headings of sections that state figures with no link to existing raw results."""
    found = []
    for heading, prose in sections(document.read_text(encoding="utf-8")):
        plain = re.sub(r"`[^`]*`|\]\([^)]*\)|(?:Python|PyTorch|torch) \d\.\d+", "", prose)
        targets = [document.parent / target for target in LINK.findall(prose)]
        behind = any("results" in target.parts and target.exists() for target in targets)
        if FIGURE.search(plain) and not behind:
            found.append(heading)
    return found
