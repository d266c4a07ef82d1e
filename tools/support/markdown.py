"""Lines of Markdown that several pages share."""

from collections.abc import Iterable, Mapping, Sequence


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
