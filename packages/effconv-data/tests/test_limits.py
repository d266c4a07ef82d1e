"""Numbers from files: none of them decides how much time or memory reading takes."""

import gzip
import io
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
from effconv_data import ShardError, cli, load, read_split, verify
from effconv_data.prepare import prepare
from effconv_data.prepare.pickles import read_pickle
from effconv_data.shards.contact_sheet import draw_sheet
from effconv_data.shards.index import Shard, read_index
from effconv_data.shards.samples import slim
from effconv_data.shards.tar import TarError, tar_members

SECONDS = 5
MEGABYTES = 120
"""What reading anything here may take."""

# Reads shards in every way, and prints of each how these ended and the most memory so far in MiB,
# of which the first is that of a small one.
READ = """
import sys
from pathlib import Path
from effconv_data import ShardError, StreamedBatches, load, verify
from effconv_data.shards.index import Shard
for shard in sys.argv[1:]:
    for way in (
        lambda: list(load(shard, batch_size=2, split="test", resident=False, workers=0)),
        lambda: list(
            StreamedBatches([Shard(shard, 100_000, None)], classes=("a", "b"),
            image_shape=(3, 32, 32), batch_size=8, mean=(0.5,) * 3, std=(0.5,) * 3, workers=0)
        ),
    ):
        try:
            way()
            print("read", end=" ")
        except ShardError as error:
            print("refused", end=" ")
    # Not ru_maxrss, which begins with that of the process that started this one.
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10)
"""


def claim(made, samples, split="train"):
    entry = made.index["splits"][split]
    entry["shards"][0]["samples"] = samples
    entry["samples"] = sum(row["samples"] for row in entry["shards"])


@pytest.mark.parametrize("samples", [10**12, 10**7, 10**5, 2**63])
def test_an_index_that_claims_too_many_samples_ends_at_once(small_set, samples, capsys):
    made = small_set(shards={"train": [4], "test": [2]}, shape=(3, 4, 1))
    claim(made, samples)
    folder, began = made.write(), time.monotonic()
    with pytest.raises(ValueError, match=f"{samples}|10000000|2147483648|9223372036854775807"):
        list(load(folder, batch_size=2))
    with pytest.raises(ValueError):  # noqa: PT011, the same sentence
        list(load(folder, batch_size=2, resident=False, workers=0, mean=(0.5,), std=(0.5,)))
    with pytest.raises(ValueError):  # noqa: PT011
        read_split(folder, "train")
    assert cli.main(["verify", str(folder)]) in (1, 2)
    assert cli.main(["show", str(folder), "--out", str(folder / "sheet.png")]) == 2
    assert time.monotonic() - began < SECONDS
    assert not (folder / "sheet.png").exists()


def test_samples_that_a_remote_index_claims_are_limited_too(small_set):
    made = small_set()
    rows = [{"file": f"{n}.tar", "samples": 10**7} for n in range(300)]
    made.index["splits"]["train"] = {"samples": 3 * 10**9, "shards": rows}
    with pytest.raises(ValueError, match="2147483648"):
        read_index(made.write())


@pytest.mark.parametrize(
    "change",
    [
        {"image_shape": [3, 65536, 65536]},
        {"image_shape": [1000, 4, 4]},
        {"mean": [0.5] * 5, "std": [0.5] * 5},
        {"mean": [1e308], "std": [0.5]},
        {"mean": [0.5], "std": [-0.5]},
        {"classes": [str(n) for n in range(1_000_001)]},
        {"classes": ["a" * 1001]},
        {"name": "n" * 1001},
        {"more": "x" * (1 << 24)},
    ],
    ids=lambda change: "-".join(change),
)
def test_what_an_index_says_has_limits(small_set, change):
    made = small_set()
    made.index |= change
    folder, began = made.write(), time.monotonic()
    with pytest.raises(ValueError, match=r"index\.json"):
        read_index(folder)
    assert time.monotonic() - began < SECONDS


def pax(records):
    body = b"".join(
        (lambda n: b"%d %s" % (n, line))(
            next(n for n in range(99) if n == len(b"%d " % n) + len(line))
        )
        if len(line) < 90
        else b"%d %s" % (len(line) + 1 + len(str(len(line) + 5)), line)
        for line in records
    )
    info = tarfile.TarInfo("pax")
    info.type, info.size = b"x", len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def member(name, data, size=None):
    info = tarfile.TarInfo(name)
    info.size = len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


# Each bomb is a piece of a tar and how often it is repeated, packed each time anew: gzip files may
# be put one behind the other.


def many_parts():
    return [
        b"".join(member(f"key.{n}.txt", b"x") for n in range(k, k + 9)) for k in range(0, 900, 9)
    ]


def large_parts():
    return (member(f"key.{n}.txt", bytes(1 << 23)) for n in range(20))


def many_headers():
    return [pax([b"k%06d=v\n" % n for n in range(10_000)])] * 30


def long_names():
    return [pax([b"path=" + b"n" * 1_000_000 + b".cls\n"]) + member("x.cls", b"0")] * 150


def large_images(png):
    image = png + bytes(250_000)
    return (member(f"{n}.png", image) + member(f"{n}.cls", b"0") for n in range(600))


def huge_member():
    return [member("a.png", b"", size=1 << 60)]


def zeros_behind_the_end():
    return [bytes(1024), *[bytes(1 << 24)] * 10]


def packed(path, pieces):
    """Write pieces as a gzip."""
    before = packed_before = b""
    with path.open("wb") as file:
        for piece in [*pieces, bytes(1024)]:
            if piece is not before:
                before, packed_before = piece, gzip.compress(piece, 1)
            file.write(packed_before)
    return path


BOMBS = [
    many_parts,
    large_parts,
    many_headers,
    long_names,
    large_images,
    huge_member,
    zeros_behind_the_end,
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_a_small_gzip_takes_little_memory(encode, tmp_path):
    png = encode(np.zeros((32, 32, 3), np.uint8))
    small = packed(tmp_path / "small.tar", [member("a.png", png) + member("a.cls", b"0")] * 2)
    paths = [
        packed(tmp_path / f"{bomb.__name__}.tar", bomb(png) if bomb is large_images else bomb())
        for bomb in BOMBS
    ]
    command = [sys.executable, "-c", READ, *map(str, [small, *paths])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    first, *lines = done.stdout.splitlines()
    before = int(first.split()[-1])
    for bomb, line in zip(BOMBS, lines, strict=True):
        *ends, memory = line.split()
        assert bomb is large_images or ends == ["refused", "refused"], bomb
        assert int(memory) - before < MEGABYTES, bomb


def test_a_sample_has_a_limited_number_of_parts_and_bytes(tmp_path, encode, monkeypatch):
    good = member("a.png", encode(np.zeros((2, 2), np.uint8))) + member("a.cls", b"0")
    for parts in (62, 63):
        more = b"".join(member(f"a.{n}.txt", b"") for n in range(parts))
        (tmp_path / "x.tar").write_bytes(good + more + bytes(1024))
        if parts == 62:
            load(str(tmp_path / "x.tar"), batch_size=1)
        else:
            with pytest.raises(ShardError, match="64 parts"):
                load(str(tmp_path / "x.tar"), batch_size=1)
    monkeypatch.setattr("effconv_data.shards.stages.LARGEST_SAMPLE", 1000)
    (tmp_path / "x.tar").write_bytes(good + member("a.txt", bytes(1001)) + bytes(1024))
    with pytest.raises(ShardError, match="1000 bytes"):
        load(str(tmp_path / "x.tar"), batch_size=1)


def test_headers_before_a_member_are_limited_and_unknown_records_are_not_kept():
    one = member("a.txt", b"x")
    many = pax([b"comment=%d\n" % n for n in range(1000)])
    assert list(tar_members(io.BytesIO(many * 16 + one + bytes(1024)))) == [("a.txt", b"x")]
    with pytest.raises(TarError, match="16 headers"):
        list(tar_members(io.BytesIO(many * 17 + one + bytes(1024))))
    long = pax([b"path=" + b"n" * 5000 + b"\n"])
    with pytest.raises(TarError, match="4096"):
        list(tar_members(io.BytesIO(long + one + bytes(1024))))
    began = time.monotonic()
    list(tar_members(io.BytesIO(pax([b"k=v\n"] * 170_000) + one + bytes(1024))))
    assert time.monotonic() - began < SECONDS


def test_a_sample_that_waits_keeps_its_pixels_and_little_else(encode):
    pixels = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    from effconv_data.shards.problems import Sample
    from effconv_data.shards.samples import decode

    shard, shape = Shard("x.tar", 1, None), (3, 8, 8)
    large = Sample("a", {"png": encode(pixels) + bytes(200_000), "cls": b"1", "txt": bytes(99)})
    small = slim(shard, large, shape, 2)
    assert sum(map(len, small.parts.values())) < 2 * 192 + (1 << 14)
    image, label = decode(shard, small, shape, 2)
    assert label == 1
    assert np.array_equal(image, pixels.transpose(2, 0, 1))
    plain = Sample("a", {"png": encode(pixels), "cls": b"1"})
    assert slim(shard, plain, shape, 2) == plain


def test_problems_of_a_shard_are_told_up_to_a_number(small_set, monkeypatch):
    made = small_set(shards={"train": [50], "test": [1]})
    folder = made.write()
    members = made.members["train-00000.tar.gz"]
    members[4:] = [(name, b"9" if name.endswith("cls") else data) for name, data in members[4:]]
    made.write()
    monkeypatch.setattr(sys.modules["effconv_data.verify"], "MOST_PROBLEMS", 10)
    report = verify(folder)["train"]
    assert report.samples == 2
    assert len(report.problems) == 11
    assert "38 more samples" in report.problems[-1].sentence


def test_a_split_that_memory_does_not_hold_is_refused_whole(small_set, monkeypatch):
    folder = small_set().write()
    monkeypatch.setattr("effconv_data.split.free_memory", lambda: 7 * 90 - 1)
    with pytest.raises(ValueError, match="630 bytes"):
        read_split(folder, "train")
    with pytest.raises(ValueError, match="resident=False"):
        load(folder, batch_size=2, resident=True)
    assert len(read_split(folder, "train", limit=6).labels) == 6


def test_the_sheet_of_large_images_is_small(small_set):
    folder = small_set(shape=(2000, 1, 1), shards={"train": [3], "test": [1]}).write()
    assert max(draw_sheet(read_index(folder), "train").size) < 4000


def test_a_compressed_idx_file_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("effconv_data.prepare.mnist.LARGEST_UNPACKED", 1 << 20)
    header = struct.pack(">4I", 0x803, 1 << 31, 28, 28)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + bytes(1 << 24)))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="unpacks to more than 1048576"):
        prepare("mnist", tmp_path, out=tmp_path / "out", splits=["train"], checksum=False)


@pytest.mark.parametrize("bomb", ["member", "header"])
def test_an_archive_that_unpacks_without_end(bomb, tmp_path, monkeypatch):
    monkeypatch.setattr("effconv_data.prepare.archives.LARGEST_FILE", 1 << 20)
    if bomb == "member":
        data = member("stl10_binary/class_names.txt", bytes(1 << 24))
    else:
        info = tarfile.TarInfo("pax")
        info.type, info.size = b"x", 1 << 24
        data = info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 24)
    (tmp_path / "stl10_binary.tar.gz").write_bytes(gzip.compress(data))
    with pytest.raises(ValueError, match=f"{1 << 24}"):
        prepare("stl10", tmp_path, out=tmp_path / "out", splits=["train"], checksum=False)


def test_an_npz_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("effconv_data.prepare.imagenet32.MOST_IMAGES", 100)
    with zipfile.ZipFile(tmp_path / "val_data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        out = io.BytesIO()
        np.save(out, np.zeros((101, 3 * 32 * 32), np.uint8))
        archive.writestr("data.npy", out.getvalue())
        archive.writestr("labels.npy", b"")
    with pytest.raises(ValueError, match="more than it may"):
        prepare("imagenet32", tmp_path, out=tmp_path / "out", splits=["test"])


@pytest.mark.parametrize("opcodes", ["dict", "set"])
def test_a_pickle_whose_keys_take_without_end_to_hash(opcodes):
    # A tuple of a tuple twice, 60 deep: 2^60 leaves, in 300 bytes.
    nested = b"\x80\x04)" + b"q\x00h\x00\x86" * 60
    nested = b"\x80\x04K\x01" + b"2\x86" * 60
    end = {
        "dict": b"r\x00\x00\x00\x00}j\x00\x00\x00\x00K\x01s.",
        "set": b"r\x00\x00\x00\x00\x8f(j\x00\x00\x00\x00\x90.",
    }[opcodes]
    began = time.monotonic()
    with pytest.raises(ValueError, match="key"):
        read_pickle(io.BytesIO(nested + end), "the pickle")
    assert time.monotonic() - began < SECONDS


def test_plain_keys_of_pickles_are_admitted():
    value = {"a": [1, 2], (1, "b"): {4: (5,)}, "c": None}
    for protocol in range(5):
        assert read_pickle(io.BytesIO(pickle.dumps(value, protocol)), "it") == value
    sets = {"a": {1, 2}, "b": frozenset({3, (4, 5)})}
    assert read_pickle(io.BytesIO(pickle.dumps(sets, 4)), "it") == sets
