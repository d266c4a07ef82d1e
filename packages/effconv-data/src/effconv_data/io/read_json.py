"""Read untrusted JSON: check limits, then validate against one schema.

A schema is a type that msgspec supports: a `msgspec.Struct`, or an annotated built-in such as
`dict[Name, Annotated[int, msgspec.Meta(ge=1, le=1000)]]`. Whatever a file holds, reading it takes
time and memory proportional to its limit, and returns a value of that type or raises.
"""

import json
import math
import os
import stat
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeVar

import msgspec

Kind = TypeVar("Kind")

LIMIT = 8 << 20
"""Largest size of a JSON file, in bytes, unless its reader passes another."""
DEPTH = 32
"""Largest nesting depth of lists and mappings."""
LINE = 1 << 20
"""Bytes of a line of a file of lines."""
LINES = 24 << 20
"""Bytes that a file of lines may have, unless its reader says otherwise."""
WASTE = 4 << 20
"""Bytes of lines without content after which a file is not read on."""
LARGEST = 2**63 - 1
"""Largest absolute value of integers."""


def read_json(
    path: str | os.PathLike[str], kind: type[Kind], *, limit: int = LIMIT, finite: bool = True
) -> Kind:
    """Read a JSON file and validate it against a schema.

    Args:
        path: a regular file, or a link to one.
        kind: the schema, see above; `typing.Any` accepts any content within the limits.
        limit: largest size of the file, in bytes.
        finite: whether NaN and infinity, which Python writes although JSON lacks them, are refused.

    Returns:
        The content, as a value of `kind`.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.
        ValueError: if it is not a regular file, too large, not JSON, or not of that schema; the
            message names the file and the position within it.
    """
    text = read_limited(path, limit)
    return decode_json(text, kind, what=str(path), limit=limit, finite=finite)


def read_limited(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.
        ValueError: if it is larger, or not a regular file (a folder, a pipe, a device).
    """
    with _opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(
            f"{path} has more than {limit:,} bytes, which is all that such a file may have; name "
            "another file"
        )
    return content


def read_lines(
    path: str | os.PathLike[str],
    kind: type[Kind],
    *,
    limit: int = LINES,
    finite: bool = True,
    least: Any = None,
) -> Iterator[Kind | ValueError]:
    """Read a file that holds JSON of one schema in each line.

    Args:
        path: a regular file.
        kind: the schema of a line.
        limit: bytes that are read of the file.
        finite: whether NaN and infinity are refused.
        least: a schema that the content must have beside `kind`, which is what is returned; None
            asks for nothing more.

    Yields:
        For each line its content, or the error that says why it has none. A last line without an
        end, as an interruption leaves it, and empty lines are passed over. Nothing follows a line
        of more than 1 MiB, 4 MiB of lines without content, or the limit.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.
        ValueError: if it is not a regular file.
    """
    with _opened(path) as file:
        number = waste = 0
        while line := file.readline(LINE + 1):
            number += 1
            what = f"{path}, line {number}"
            if len(line) > LINE:
                yield ValueError(f"{what} has more than {LINE:,} bytes; the rest is not read")
                return
            if file.tell() > limit:
                yield ValueError(f"{path} is read to {limit:,} bytes, which is line {number - 1}")
                return
            if not line.endswith(b"\n") or not line.strip():
                continue
            try:
                content = decode_json(line, kind, what=what, finite=finite, unique=False)
                if least is not None:
                    conform(content, least, what=what)
            except ValueError as error:
                waste += len(line)
                yield ValueError(str(error))  # without the frames, which hold the content
                if waste > WASTE:
                    yield ValueError(f"{what} is the last that is read: too many have no content")
                    return
            else:
                yield content


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"{path} is not a regular file; name a file")
    return os.fdopen(handle, "rb")


def decode_json(
    text: str | bytes,
    kind: type[Kind],
    *,
    what: str = "the text",
    limit: int = LIMIT,
    finite: bool = True,
    largest: int = LARGEST,
    unique: bool = True,
) -> Kind:
    """Decode JSON and validate it against a schema, as `read_json` does.

    Args:
        text: the JSON; bytes are UTF-8.
        kind: the schema.
        what: names the text in errors.
        limit: characters, or bytes, that the text may have.
        finite: whether NaN and infinity are refused.
        largest: integers are at most this, on both sides of zero.
        unique: whether a name that a mapping holds twice is refused; it costs a call each mapping.

    Raises:
        ValueError: if it is longer, is not JSON, is nested more than 32 deep, holds a number that
            is too large or text that is not Unicode, or is not of that schema.
    """
    if len(text) > limit:
        raise ValueError(
            f"{what} has more than {limit:,} characters, which is all that it may have; pass what "
            "effconv wrote"
        )
    try:
        content = json.loads(text, object_pairs_hook=_mapping if unique else None)
    except UnicodeDecodeError:
        raise ValueError(f"{what} is not text in UTF-8; pass a file that effconv wrote") from None
    except RecursionError:
        raise _too_deep(what) from None
    except ValueError as error:
        raise ValueError(f"{what} is not JSON ({error}); pass a file that effconv wrote") from None
    _check_values(content, what, finite, largest)
    return conform(content, kind, what=what)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the mapping of some pairs; what a repeated name means, readers disagree about."""
    content = dict(pairs)
    if len(content) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {in_brief(twice)} stands twice in one mapping")
    return content


def conform(content: Any, kind: type[Kind], *, what: str) -> Kind:
    """Return built-in values as a value of a schema.

    Args:
        content: numbers, text, lists and mappings.
        kind: the schema.
        what: names the content in errors.

    Raises:
        ValueError: if the content is not of that schema; the message names the place within it.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        problem = str(error)[:300]
        raise ValueError(f"{what} does not hold what it should: {problem}; mend it there") from None


def is_text(value: str) -> bool:
    """Return whether text has no half of a character (a lone surrogate), which no file can hold."""
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def _check_values(content: Any, what: str, finite: bool, largest: int) -> None:
    """Check what a schema cannot: depth, size of integers, surrogates, numbers not finite."""
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
                if not is_text(value):
                    raise ValueError(
                        f"{what} holds {ascii(value)[:80]}, half of a character; write it as text"
                    )
            elif isinstance(value, float):
                if finite and not math.isfinite(value):
                    raise ValueError(
                        f"{what} holds {value}, and numbers are finite; write one that is"
                    )
            elif isinstance(value, int) and abs(value) > largest:
                raise ValueError(
                    f"{what} holds an integer of {len(str(abs(value)))} digits; the largest is "
                    f"{largest}, so write a smaller one"
                )
        level, depth = below, depth + 1


def in_brief(value: object) -> str:
    """Return a value as an error quotes it: its representation, cut to 100 characters."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "an integer of more than 4,300 digits"
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def _too_deep(what: str) -> ValueError:
    return ValueError(
        f"{what} is nested more than {DEPTH} deep, and nothing that effconv writes is; pass a file "
        "that it wrote"
    )
