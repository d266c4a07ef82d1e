"""Mutated shards: each ends in a named error or a counted skip, in time and in memory."""

import gzip
import random
import resource
import signal
import sys
import tarfile
import zlib

import pytest
from effconv_data import ShardError, StreamedBatches, load
from effconv_data.shards.index import Shard

SECONDS = 10
"""What one shard of 8 samples may take; it takes milliseconds."""


def flip(data, source):
    changed = bytearray(data)
    for _ in range(source.randint(1, 8)):
        changed[source.randrange(len(data))] ^= 1 << source.randrange(8)
    return bytes(changed)


def truncate(data, source):
    return data[: source.randrange(len(data))]


def swap_headers(data, source):
    blocks = [data[i : i + 512] for i in range(0, len(data), 512)]
    i, j = source.randrange(len(blocks)), source.randrange(len(blocks))
    blocks[i], blocks[j] = blocks[j], blocks[i]
    return b"".join(blocks)


def huge_size(data, source):
    """Declare a size of up to 2^70 bytes in some member's header, with a right sum."""
    info = tarfile.TarInfo("train-000001.png")
    info.size = 1 << source.randrange(10, 70)
    header = info.tobuf(tarfile.GNU_FORMAT)
    at = 512 * source.randrange(len(data) // 512)
    return data[:at] + header + data[at + 512 :]


def noise(data, source):
    """Replace an image's bytes."""
    at = data.find(b"\x89PNG", source.randrange(len(data) // 2))
    return data[:at] + source.randbytes(200) + data[at + 200 :]


def huge_picture(data, source):
    """Let a PNG's header claim up to 2^31 pixels a side; its sum is then wrong, or made right."""
    at = data.find(b"IHDR", source.randrange(len(data) // 2))
    side = source.randrange(1 << 31).to_bytes(4, "big")
    chunk = b"IHDR" + side + side + data[at + 12 : at + 17]
    check = (
        zlib.crc32(chunk).to_bytes(4, "big") if source.random() < 0.5 else data[at + 17 : at + 21]
    )
    return data[:at] + chunk + check + data[at + 21 :]


KINDS = (flip, truncate, swap_headers, huge_size, noise, huge_picture)


def outcome(path, on_error):
    """Stream the shard; give "error", or the number of samples given and of those skipped."""
    try:
        batches = _batches(path, on_error)
        given = sum(len(labels) for _, labels in batches)
    except ShardError as error:
        named = str(path) in str(error) and error.problem.shard == str(path)
        return "error" if named else "an error that names no shard"
    return given, len(batches.problems)


def _batches(path, on_error):
    return StreamedBatches(
        [Shard(str(path), 8, None)],
        classes=("cat", "dog", "eel"),
        image_shape=(3, 6, 5),
        batch_size=2,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        training=False,
        workers=0,
        on_error=on_error,
    )


def without_index(path):
    """Stream the shard as one that has no index; give "error" or the number of samples."""
    try:
        return sum(len(labels) for _, labels in load(str(path), split="test", batch_size=2))
    except ShardError as error:
        return "error" if str(path) in str(error) else "an error that names no shard"


class TooLong(BaseException):
    """Not an Exception, which the reader would take for a damaged shard."""


@pytest.fixture
def alarm():
    def too_long(*_):
        raise TooLong(f"a shard took more than {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, too_long)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGALRM, and ru_maxrss in KiB")
@pytest.mark.parametrize("mutations", [500, pytest.param(2000, marks=pytest.mark.long)])
def test_mutated_shards_end_in_an_error_or_a_counted_skip(mutations, small_set, tmp_path, alarm):
    made = small_set(shards={"train": [8]})
    compressed = (made.write() / "train-00000.tar.gz").read_bytes()
    plain = gzip.decompress(compressed)
    source = random.Random(0)
    path = tmp_path / "mutated.tar"
    path.write_bytes(plain)
    assert outcome(path, "raise") == (8, 0)
    normal = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    errors = skips = unchanged = 0
    for number in range(mutations):
        mutate = KINDS[number % len(KINDS)]
        data = mutate(plain, source)
        if number % 4 == 0:
            data = (
                mutate(compressed, source) if mutate in (flip, truncate) else gzip.compress(data, 1)
            )
        path.write_bytes(data)
        signal.alarm(SECONDS)
        stopped, skipped = outcome(path, "raise"), outcome(path, "skip")
        counted = without_index(path)
        signal.alarm(0)
        # Where headers were swapped a sample may be another, but none is lost unseen.
        assert counted in ("error", 8) or (mutate is swap_headers and counted > 8)
        if stopped == "error":
            # Skipping gives what is whole, and counts the rest.
            assert skipped == "error" or (skipped[1] > 0 and sum(skipped) == 8)
            errors += 1
            skips += skipped != "error"
        else:
            # A flipped bit in pixels or in an unused field; sums are what finds those.
            assert stopped == skipped == (8, 0)
            unchanged += 1
    assert errors > mutations // 2
    assert skips > mutations // 4
    assert unchanged < mutations // 2
    # In KiB on Linux; no shard took a hundred megabytes more than a whole one.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - normal < 100_000


@pytest.mark.slow
def test_every_mutation_is_found_where_the_index_has_sums(small_set):
    made = small_set(shards={"train": [8], "test": [1]})
    folder = made.write()
    made.sign()
    sha256 = made.index["splits"]["train"]["shards"][0]["sha256"]
    path = folder / "train-00000.tar.gz"
    whole, source = path.read_bytes(), random.Random(1)
    for number in range(200):
        data = (flip, truncate)[number % 2](whole, source)
        path.write_bytes(data)
        batches = StreamedBatches(
            [Shard(str(path), 8, sha256)],
            classes=("cat", "dog", "eel"),
            image_shape=(3, 6, 5),
            batch_size=8,
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            workers=0,
        )
        if data == whole:
            continue
        with pytest.raises(ShardError, match="sha256"):
            list(batches)
