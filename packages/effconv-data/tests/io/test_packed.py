"""Packed streams are unpacked by what they are, not by their name."""

import bz2
import gzip
import importlib.util
import io
import lzma
import sys
from pathlib import Path

import pytest
from effconv_data import ShardError, load
from effconv_data.io.packed import unpacked

spec = importlib.util.spec_from_file_location(
    "sample_tars", Path(__file__).parents[1] / "sample_tars.py"
)
sample_tars = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sample_tars)
written, samples, pixels = sample_tars.written, sample_tars.samples, sample_tars.pixels

PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("end", [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz", ".tar"])
@pytest.mark.parametrize("kind", PACKERS)
def test_packed_shards_are_read_whatever_their_name(tmp_path, encode, kind, end):
    path = written(tmp_path / f"s{end}", samples(encode), PACKERS[kind])
    for resident in (True, False):
        assert pixels(path, resident=resident, workers=0) == [0, 10, 20, 30]


@pytest.mark.parametrize("kind", PACKERS)
def test_packed_streams_behind_each_other_are_one(kind):
    data = bytes(range(256)) * 999
    both = PACKERS[kind](data) + PACKERS[kind](data[::-1])
    assert unpacked(io.BytesIO(both))[1].read() == data + data[::-1]


@pytest.mark.parametrize("kind", ["bz2", "xz"])
@pytest.mark.parametrize("kept", [5, 0.5, -1])
def test_a_packed_shard_that_is_cut_is_refused(tmp_path, encode, kind, kept):
    path = written(tmp_path / "s.tar", samples(encode), PACKERS[kind])
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(ShardError, match=r"s\.tar"):
        load(str(path), split="test", batch_size=2)


def test_a_flipped_bit_in_a_packed_shard_is_seen(tmp_path, encode):
    for kind in ("bz2", "xz"):
        path = written(tmp_path / "s.tar", samples(encode), PACKERS[kind])
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(ShardError, match=r"s\.tar"):
            load(str(path), split="test", batch_size=2)


def test_an_xz_stream_that_wants_much_memory_is_refused():
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    data = lzma.compress(b"x" * 100, filters=filters)
    with pytest.raises(lzma.LZMAError, match="[Mm]emory"):
        unpacked(io.BytesIO(data))[1].read()
    assert unpacked(io.BytesIO(lzma.compress(b"x" * 100, preset=9)))[1].read() == b"x" * 100


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        pytest.param(
            b"\x28\xb5\x2f\xfd",
            "zstd",
            marks=pytest.mark.skipif(sys.version_info >= (3, 14), reason="reads it"),
        ),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, head, kind):
    path = tmp_path / "s.tar.zst"
    path.write_bytes(head + bytes(2000))
    with pytest.raises(ShardError, match=rf"\b{kind}\b") as raised:
        load(str(path), split="test", batch_size=2)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="zstd is part of Python from 3.14 on")
def test_zstd_where_python_has_it(tmp_path, encode):
    from compression import zstd

    path = written(tmp_path / "s.tar.zst", samples(encode), zstd.compress)
    assert pixels(path) == [0, 10, 20, 30]
