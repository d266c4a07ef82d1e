"""Members of a tar stream, in one pass, without a file on disk.

The standard library's tarfile takes ten to twenty times as long per member, which for small
pictures is as long as their decoding (`hatch run bench:data`). Nothing here writes a file or
follows a link, so a member's name can do no harm.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO

__all__ = ["LARGEST_MEMBER", "TarError", "tar_members"]

BLOCK = 512
LARGEST_MEMBER = 1 << 24
"""Bytes; a header that declares more counts as damaged before anything is allocated for it."""
LARGEST_HEADER = 1 << 20
LONGEST_NAME = 4096
"""Characters, as a path of Linux."""
MOST_HEADERS = 16
"""Extended headers before one member."""
LARGEST_PADDING = 1 << 26
"""Largest number of zero bytes after the end mark; tar writes thousands."""

REGULAR = (b"0", b"\0", b"7")
EMPTY = (b"1", b"2", b"3", b"4", b"6")
"""Links, devices and pipes, behind whose header there is no data."""
LEFT_OUT = (b"5", b"g", b"K", b"V", b"D")
"""Folders, global headers, long link names and volume labels: not part of a sample."""


class TarError(ValueError):
    """The stream is not a complete tar; the message says where it is wrong."""


def tar_members(
    stream: BinaryIO,
    *,
    largest: int = LARGEST_MEMBER,
    wanted: Callable[[str], bool] | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each regular file of a tar, in order.

    POSIX ustar, pax and GNU headers are read. The stream is read to its end, so that a compressed
    one checks its own checksum.

    Args:
        stream: a binary stream; need not be seekable.
        largest: bytes that a member may have.
        wanted: takes a regular file's name, and tells whether it is given; others, links and
            devices are read over a piece at a time, whatever their size. None gives all files, and
            admits nothing else.

    Raises:
        TarError: if a header or a member is cut off, a header's sum is wrong, a size is not a
            number or is too large, a member is a link or a device, a name is longer than 4,096
            characters, more than 16 headers precede a member, or the end mark is missing or has
            data behind it.
    """
    longer: dict[str, str] = {}
    at = headers = 0
    while True:
        header = stream.read(BLOCK)
        if len(header) < BLOCK:
            raise TarError(f"it is cut off at byte {at + len(header)}, with no end mark")
        if not header.strip(b"\0"):
            break
        name, size, kind = _header(header, at)
        if kind in (b"x", b"L", *LEFT_OUT):
            if size > LARGEST_HEADER:
                raise TarError(f"the header at byte {at} is {size} bytes long, which none is")
            headers += 1
            if headers > MOST_HEADERS:
                raise TarError(f"more than {MOST_HEADERS} headers precede the member at byte {at}")
        elif kind not in REGULAR and wanted is None:
            raise TarError(f"member {name!r} is a link, a device or sparse, which no sample needs")
        elif "size" in longer:
            size = _decimal(longer["size"], at)
        name = longer.get("path", name)
        if len(name) > LONGEST_NAME:
            raise TarError(
                f"a name before byte {at} has {len(name)} characters; {LONGEST_NAME} are allowed"
            )
        padding = -size % BLOCK
        left_out = kind not in REGULAR and kind not in (b"x", b"L", *LEFT_OUT)
        if wanted is not None and (left_out or (kind in REGULAR and not wanted(name))):
            data_size = 0 if kind in EMPTY else size + padding
            _read_over(stream, data_size, name)
            at += BLOCK + data_size
            longer, headers = {}, 0
            continue
        if size > largest:
            raise TarError(
                f"member {name!r:.200} is declared to be {size} bytes long; {largest} are allowed"
            )
        data = stream.read(size)
        if len(data) < size or len(stream.read(padding)) < padding:
            raise TarError(f"member {name!r} is cut off")
        at += BLOCK + size + padding
        if kind == b"x":
            longer |= _pax_records(data, at)
        elif kind == b"L":
            longer["path"] = _text(data)
        elif kind in REGULAR:
            yield name, data
        if kind not in (b"x", b"L", b"K", b"g"):
            longer, headers = {}, 0
    padding = 0
    while block := stream.read(1 << 16):
        padding += len(block)
        if block.strip(b"\0") or padding > LARGEST_PADDING:
            raise TarError(f"its end mark at byte {at} has data behind it")


def _read_over(stream: BinaryIO, size: int, name: str) -> None:
    while size > 0:
        piece = stream.read(min(size, 1 << 16))
        if not piece:
            raise TarError(f"member {name!r:.200} is cut off")
        size -= len(piece)


def _header(header: bytes, at: int) -> tuple[str, int, bytes]:
    """Return name, size in bytes and type of one header block."""
    if _octal(header[148:156], at) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise TarError(f"the header at byte {at} does not have the sum that it states")
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name, _octal(header[124:136], at), header[156:157]


def _octal(field: bytes, at: int) -> int:
    """Read a number: octal digits, or, with the first bit set, big-endian binary as in GNU tar."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.split(b"\0", 1)[0].strip()
    if digits.strip(b"01234567"):
        raise TarError(f"the header at byte {at} has {field!r} for a number")
    return int(digits or b"0", 8)


def _decimal(text: str, at: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise TarError(f"the header before byte {at} has {text!r} for a size")
    return int(text)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _pax_records(data: bytes, at: int) -> dict[str, str]:
    """Read records "LENGTH KEY=VALUE\\n", where LENGTH counts the whole record."""
    records, start = {}, 0
    while start < len(data):
        digits = data[start : start + 10].partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 10 else 0
        record = data[start + len(digits) + 1 : start + length]
        if (
            not len(digits) < length <= len(data) - start
            or not record.endswith(b"\n")
            or b"=" not in record
        ):
            raise TarError(f"the extended header before byte {at} is malformed")
        key, _, value = record[:-1].partition(b"=")
        if key in (b"path", b"size"):
            records[key.decode()] = value.decode("utf-8", "backslashreplace")
        start += length
    return records
