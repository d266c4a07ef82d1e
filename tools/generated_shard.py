"""Writes a shard of generated images to standard output, for `pipe:` addresses.

`python generated_shard.py FIRST SAMPLES CLASSES`: pictures of 32x32 noise, each with its own number
in its first pixel; nothing is stored.
"""

import io
import struct
import sys
import tarfile
import zlib
from collections.abc import Iterator

import numpy as np

SIZE = 32


def pixels_of(number: int) -> np.ndarray:
    """Give a picture `(SIZE, SIZE, 3)` uint8, the same for the same number."""
    pixels = np.random.default_rng(number).integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8)
    pixels[0, 0] = number >> 16, number >> 8 & 255, number & 255
    return pixels


def png(pixels: np.ndarray) -> bytes:
    """Encode a picture without compression, which noise would only cost time."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows.tobytes(), 0)),
            chunk(b"IEND", b""),
        ]
    )


def members(first: int, samples: int, classes: int) -> Iterator[tuple[str, bytes]]:
    """Give the members of a shard: a picture and its label for each number from the first on."""
    for number in range(first, first + samples):
        yield f"{number:08}.png", png(pixels_of(number))
        yield f"{number:08}.cls", str(number % classes).encode()


def main(first: int, samples: int, classes: int) -> None:
    """Write the shard."""
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members(first, samples, classes):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    try:
        main(*map(int, sys.argv[1:]))
    except BrokenPipeError:  # a reader that needs no more of it
        sys.stderr.close()
