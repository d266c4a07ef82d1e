"""Streams that are read unpacked: gzip, bzip2 and xz, and zstd where Python can.

What a file is packed by is told by its first bytes, not by its name. A packed stream is unpacked a
piece at a time, and a window of xz has a limit, so that no file decides how much memory it takes.
"""

import bz2
import gzip
import importlib
import io
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO

__all__ = ["LARGEST_RATIO", "unpacked"]

LARGEST_WINDOW = 1 << 27
"""Bytes that unpacking an xz stream may take; `xz -9` needs half of it."""
LARGEST_RATIO = {"": 1, "gzip": 1032}
"""How many times larger a stream can be unpacked, by its kind; of other kinds any number."""
PIECE = 1 << 16

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
REFUSED = {
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"\x1f\x9d": "compress",
    b"\x89LZO\x00": "lzop",
    b"LZIP": "lzip",
}


def unpacked(file: BinaryIO) -> tuple[str, BinaryIO]:
    """Return by what a file is packed, `""` if it is not, and a stream of its content.

    Args:
        file: a seekable binary file; it is read from its first byte.

    Raises:
        ValueError: if it is packed by something else; while it is read, if it is damaged.
    """
    file.seek(0)
    head = file.read(8)
    file.seek(0)
    for magic, kind in REFUSED.items():
        if head.startswith(magic):
            raise ValueError(
                f"it is packed by {kind}, and gzip, bzip2, xz and zstd are read; pack it again by "
                "one of them"
            )
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
    if kind == "gzip":
        return kind, io.BufferedReader(gzip.GzipFile(fileobj=file, mode="rb"), 1 << 20)
    if kind:
        return kind, io.BufferedReader(_Unpacked(file, _decompressor(kind)), 1 << 20)
    return kind, file


def _decompressor(kind: str) -> Callable[[], Any]:
    """Return what makes a decompressor with `decompress(data, max_length)`."""
    if kind == "bzip2":
        return bz2.BZ2Decompressor
    if kind == "xz":
        return lambda: lzma.LZMADecompressor(memlimit=LARGEST_WINDOW)
    try:
        zstd = importlib.import_module("compression.zstd")
    except ImportError:
        raise ValueError(
            "it is packed by zstd, which Python reads from version 3.14 on; pack it again by gzip, "
            "bzip2 or xz, or use that Python"
        ) from None
    return zstd.ZstdDecompressor


class _Unpacked(io.RawIOBase):
    """A file of one or more packed streams, unpacked as it is read."""

    def __init__(self, file: BinaryIO, start: Callable[[], Any]) -> None:
        super().__init__()
        self._file, self._start, self._stream = file, start, start()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self._stream.eof:
                rest = self._stream.unused_data or self._file.read(PIECE)
                # Streams may follow each other, with zero bytes between and behind them.
                while rest and not (rest := rest.lstrip(b"\0")):
                    rest = self._file.read(PIECE)
                if not rest:
                    return 0
                self._stream, data = self._start(), rest
            elif self._stream.needs_input:
                data = self._file.read(PIECE)
                if not data:
                    raise EOFError("its packed stream is cut off")
            piece = self._stream.decompress(data, len(buffer))
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
