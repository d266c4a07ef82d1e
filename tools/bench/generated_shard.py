"""Writes a shard of generated images to standard output, for `pipe:` addresses.

`python generated_shard.py FIRST SAMPLES CLASSES`: pictures of 32x32 noise, each with its own number
in its first pixel; nothing is stored.
"""

import io
import random
import struct
import sys
import tarfile
import zlib
from collections.abc import Iterator

SIZE = 32
ROW = 3 * SIZE


def pixels_of(number: int) -> bytes:
    """Give a picture, row after row of red, green and blue bytes; the same for the same number."""
    noise = random.Random(number).randbytes(SIZE * ROW)
    return number.to_bytes(3, "big") + noise[3:]


def png(pixels: bytes) -> bytes:
    """Encode a picture without compression, which noise would only cost time."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        length, checksum = (struct.pack(">I", n) for n in (len(data), zlib.crc32(kind + data)))
        return length + kind + data + checksum

    rows = b"".join(b"\0" + pixels[start : start + ROW] for start in range(0, SIZE * ROW, ROW))
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows, 0)),
            chunk(b"IEND", b""),
        ]
    )


def shard_members(first: int, samples: int, classes: int) -> Iterator[tuple[str, bytes]]:
    """Give the members of a shard: a picture and its label for each number from the first on."""
    for number in range(first, first + samples):
        yield f"{number:08}.png", png(pixels_of(number))
        yield f"{number:08}.cls", str(number % classes).encode()


def main(first: int, samples: int, classes: int) -> None:
    """Write the shard."""
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in shard_members(first, samples, classes):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    try:
        main(*map(int, sys.argv[1:]))
    except BrokenPipeError:  # a reader that needs no more of it
        sys.stderr.close()
