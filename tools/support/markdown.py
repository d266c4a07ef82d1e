"""Markdown that several pages share, and the templates that pages are made of."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table; cells are written as `str` gives them."""
    lines = [headings, *rows]
    made = [f"| {' | '.join(map(str, line))} |" for line in lines]
    return [made[0], "|---" * len(headings) + "|", *made[1:]]


def provenance(environment: Mapping[str, str]) -> str:
    """Return commit, device and torch of a raw result, as pages name them."""
    return "commit {commit}, {device}, torch {torch}".format_map(environment)


def link(path: object, text: str = "Raw") -> str:
    """Return a link from a page in `docs` to a raw result in the repository."""
    return f"[{text}](../{path})"


def render(template: str, **values: Any) -> str:
    """Return the page that a template of `tools/docs/templates` makes of values.

    Templates have `table`, as text, `provenance` and `link`, and the filter `f`, which formats a
    number. A value that is not given is an error.
    """
    loader = FileSystemLoader(Path(__file__).parents[1] / "docs" / "templates")
    made = Environment(
        loader=loader,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    made.filters["f"] = format
    made.globals |= {"provenance": provenance, "link": link}
    made.globals["table"] = lambda headings, rows: "\n".join(table(headings, rows))
    return made.get_template(template).render(values)
