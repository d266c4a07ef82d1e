"""What a JSON file of ours is, so that one in the place of another is named."""

from collections.abc import Iterable
from typing import Any

from effconv_core.io.read_json import in_brief

__all__ = ["check_kind"]

KINDS = {
    "a frontier": {"points", "original"},
    "a plan": {"sizes"},
    "the settings of a run": {"settings", "environment"},
    "the marker of a run's folder": {"kind", "id"},
    "the result of a run": {"networks"},
    "a latency table": {"seconds", "seconds of the rest"},
    "the progress of a command": {"of", "stages"},
}
"""Our files, and the entries that show which one it is."""
REMEDIES = {
    "a frontier": "; pass a file of `effconv frontier`",
    "a plan": "; pass a plan's file, such as plan.json of a run",
    "the progress of a command": "; pass another name",
}
"""What to do where the first is needed, unless the caller says it."""


def check_kind(content: Any, needed: str, read: Iterable[int]) -> None:
    """Raise unless a JSON document may be of the needed kind, and has a schema that is read.

    Args:
        content: of the file.
        needed: a key of `KINDS`.
        read: the schemas that this version reads.

    Raises:
        ValueError: if it is not; the message says what it is instead.
    """
    found, read = _kind_of(content), sorted(read)
    schema = content.get("schema") if isinstance(content, dict) else None
    is_read = type(schema) is int and schema in read
    if found in (None, needed) and is_read:
        return
    if found == needed and schema is not None:
        raise ValueError(
            f"this is {needed} of schema {in_brief(schema)}; this version reads "
            f"{' and '.join(map(str, read))}, so make the file again"
        )
    is_what = found or _in_brief(content)
    raise ValueError(f"this is {is_what}, and not {needed}{REMEDIES.get(needed, '')}")


def _kind_of(content: Any) -> str | None:
    entries = content.keys() if isinstance(content, dict) else set()
    return next((name for name, needed in KINDS.items() if needed <= entries), None)


def _in_brief(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a JSON {type(content).__name__}"
    return f"a JSON object with the entries {in_brief(sorted(content)[:5])}"
