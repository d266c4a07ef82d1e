"""Writes a shard of generated images to standard output, for `pipe:` addresses.

`python generated_shard.py FIRST SAMPLES CLASSES`: images of 32x32 noise, each with its own number
in its first pixel; nothing is stored.
"""

import io
import random
import sys
import tarfile
from collections.abc import Iterator

from PIL import Image

SIZE = 32
ROW = 3 * SIZE


def pixels_of(number: int) -> bytes:
    """Return a picture, row after row of red, green and blue bytes, a function of its number."""
    noise = random.Random(number).randbytes(SIZE * ROW)
    return number.to_bytes(3, "big") + noise[3:]


def png(pixels: bytes) -> bytes:
    """Encode an image without compression, which would only cost time for noise."""
    encoded = io.BytesIO()
    Image.frombytes("RGB", (SIZE, SIZE), pixels).save(encoded, "PNG", compress_level=0)
    return encoded.getvalue()


def shard_members(first: int, samples: int, classes: int) -> Iterator[tuple[str, bytes]]:
    """Yield the members of a shard: a picture and its label for each number from the first on."""
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
    except BrokenPipeError:  # the reader needs no more
        sys.stderr.close()
