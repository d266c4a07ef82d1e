"""Which addresses are read: files, http and https; all else runs a program, and must be allowed."""

import re

__all__ = ["check_address", "is_http", "is_remote"]

SCHEME = re.compile(r"(pipe):|([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
HTTP = ("http", "https")


def is_remote(place: str) -> bool:
    """Return whether a location is an address, such as `https://...` or `pipe:...`, not a path."""
    return SCHEME.match(place) is not None


def is_http(place: str) -> bool:
    """Return whether a place is an `http://` or `https://` address."""
    return _scheme(place) in HTTP


def check_address(place: str, *, allow_commands: bool = False) -> None:
    """Raise ValueError if reading from a place would run a program.

    Args:
        place: a path or an address.
        allow_commands: whether it may.
    """
    scheme = _scheme(place)
    if scheme is not None and scheme not in HTTP and not allow_commands:
        raise ValueError(
            f"{place!r} begins with {scheme}:, for which a program would be run; pass files or "
            "http(s) addresses, or, from Python and for addresses that you trust, "
            "allow_commands=True"
        )


def _scheme(place: str) -> str | None:
    match = SCHEME.match(place)
    return None if match is None else (match[1] or match[2]).lower()
