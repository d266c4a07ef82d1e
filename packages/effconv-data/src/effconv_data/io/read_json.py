"""Read JSON that anybody may have written: limits first, then one schema, then use.

A schema is a type that msgspec knows: a `msgspec.Struct`, or an annotated built-in such as
`dict[Name, Annotated[int, msgspec.Meta(ge=1, le=1000)]]`. Whatever a file holds, reading it takes
time and memory proportional to its limit, and ends with a value of that type or one sentence.
"""

import json
import math
import os
import stat
from typing import Any, TypeVar

import msgspec

Kind = TypeVar("Kind")

LIMIT = 8 << 20
"""Bytes that a JSON file may have, unless its reader says otherwise."""
DEPTH = 32
"""Lists and mappings within each other."""
LARGEST = 2**63 - 1
"""Integers are at most this, on both sides of zero."""


def read_json(
    path: str | os.PathLike[str], kind: type[Kind], *, limit: int = LIMIT, finite: bool = True
) -> Kind:
    """Read a JSON file of one schema.

    Args:
        path: a regular file; what a link leads to counts.
        kind: the schema, see above; `typing.Any` for whatever is within the limits.
        limit: bytes that the file may have.
        finite: whether NaN and infinity, which JSON has not but Python writes, are refused.

    Returns:
        The content, as a value of `kind`.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.
        ValueError: if it is no regular file, too large, no JSON, or not of that schema; the
            sentence names the file and the place within it.
    """
    return decode_json(read_limited(path, limit), kind, what=str(path), finite=finite)


def read_limited(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.
        ValueError: if it is larger, or no regular file (a folder, a pipe, a device).
    """
    # Without O_NONBLOCK the opening of a pipe waits for a writer.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"{path} is no regular file; name a file")
    with os.fdopen(handle, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(
            f"{path} has more than {limit:,} bytes, which is all that such a file may have; name "
            "another file"
        )
    return content


def decode_json(
    text: str | bytes, kind: type[Kind], *, what: str = "the text", finite: bool = True
) -> Kind:
    """Decode JSON of one schema, as `read_json` does.

    Args:
        text: the JSON; bytes are UTF-8.
        kind: the schema.
        what: names the text in errors.
        finite: whether NaN and infinity are refused.

    Raises:
        ValueError: if it is no JSON, is nested more than 32 deep, holds a number that is too large
            or text that is not Unicode, or is not of that schema.
    """
    try:
        content = json.loads(text)
    except UnicodeDecodeError:
        raise ValueError(f"{what} is no text in UTF-8; pass a file that effconv wrote") from None
    except RecursionError:
        raise _too_deep(what) from None
    except ValueError as error:
        raise ValueError(f"{what} is no JSON ({error}); pass a file that effconv wrote") from None
    _check_values(content, what, finite)
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        problem = str(error)[:300]
        raise ValueError(f"{what} does not hold what it should: {problem}; mend it there") from None


def _check_values(content: Any, what: str, finite: bool) -> None:
    """Refuse what no schema can: depth, integers and text of any size, numbers that are none."""
    level, depth = [content], 0
    while level:
        if depth > DEPTH:
            raise _too_deep(what)
        below = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                    raise ValueError(
                        f"{what} holds {ascii(value)[:80]}, half of a character; write it as text"
                    )
            elif isinstance(value, float):
                if finite and not math.isfinite(value):
                    raise ValueError(
                        f"{what} holds {value}, and numbers are finite; write one that is"
                    )
            elif isinstance(value, int) and abs(value) > LARGEST:
                raise ValueError(
                    f"{what} holds an integer of {len(str(abs(value)))} digits; the largest is "
                    f"{LARGEST}, so write a smaller one"
                )
        level, depth = below, depth + 1


def _too_deep(what: str) -> ValueError:
    return ValueError(
        f"{what} is nested more than {DEPTH} deep, and nothing that effconv writes is; pass a file "
        "that it wrote"
    )
