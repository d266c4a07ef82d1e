"""What else lies in WebDataset users' tars, how they are packed, and where a key is cut."""

import bz2
import gzip
import io
import lzma
import sys
import tarfile

import numpy as np
import pytest
import torch
import webdataset
from effconv_data import ShardError, load, verify
from effconv_data.io.packed import unpacked
from effconv_data.shards.stages import check_members, expand_tars, open_shards, split_name
from webdataset.tariterators import base_plus_ext, group_by_keys

PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def written(path, members, pack=bytes):
    """Write a tar of (name or TarInfo, bytes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as file:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    path.write_bytes(pack(out.getvalue()))
    return path


def samples(encode, key="{:04d}", count=4):
    return [
        (f"{key.format(i)}.{part}", data)
        for i in range(count)
        for part, data in (
            ("png", encode(np.full((3, 4), 10 * i % 256, np.uint8))),
            ("cls", b"%d" % (i % 2)),
        )
    ]


def pixels(path, **options):
    batches = load(str(path), split="test", batch_size=2, normalized=False, **options)
    return torch.cat([images for images, _ in batches])[:, 0, 0, 0].tolist()


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
    with pytest.raises(ShardError, match=r"^shard .*s.tar cannot be read"):
        load(str(path), split="test", batch_size=2)


def test_a_flipped_bit_in_a_packed_shard_is_seen(tmp_path, encode):
    for kind in ("bz2", "xz"):
        path = written(tmp_path / "s.tar", samples(encode), PACKERS[kind])
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(ShardError, match=r"^shard .*s.tar cannot be read"):
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
    with pytest.raises(ShardError, match=f"packed by {kind}.*pack it again") as raised:
        load(str(path), split="test", batch_size=2)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="zstd is part of Python from 3.14 on")
def test_zstd_where_python_has_it(tmp_path, encode):
    from compression import zstd

    path = written(tmp_path / "s.tar.zst", samples(encode), zstd.compress)
    assert pixels(path) == [0, 10, 20, 30]


def label():
    info = tarfile.TarInfo("CIFAR shard 7")
    info.type = b"V"
    return info


@pytest.mark.parametrize(
    "extra",
    [
        *("README", "LICENSE", "SHA256SUMS", "README.md", "readme.txt", "LICENSE.txt"),
        *("__meta__", "__index__/list.json", "__info__/classes.txt"),
        *(".DS_Store", "._0001.png", "folder/._0001.cls", "./.gitignore"),
        *(".thumbnails/0001.png", "a/.cache/0001.png", "@eaDir/0001.png@SYNOPHOTO_THUMB_M.jpg"),
        *("__MACOSX/._0001.png", "__MACOSX/0001.png", "lost+found/0001.png", "Thumbs.db"),
        *("$RECYCLE.BIN/0001.png", "System Volume Information/0001.png", "desktop.ini"),
        label(),
    ],
    ids=lambda member: getattr(member, "name", member),
)
@pytest.mark.parametrize("at", [0, 3, 8])
def test_what_is_no_sample_is_passed_over(tmp_path, encode, extra, at):
    members = samples(encode)
    is_label = isinstance(extra, tarfile.TarInfo)
    members.insert(at, (extra, b"" if is_label else b"anything"))
    path = written(tmp_path / "s.tar", members)
    assert pixels(path) == [0, 10, 20, 30]


def test_names_from_tar_of_a_folder_and_pax_headers_are_read(tmp_path, encode):
    written(tmp_path / "s.tar", samples(encode, "./set/{:04d}"))
    assert pixels(tmp_path / "s.tar") == [0, 10, 20, 30]
    with tarfile.open(
        tmp_path / "p.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "of all"}
    ) as file:
        for name, data in samples(encode, "größe-{:04d}"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.pax_headers = len(data), 1.5, {"SCHILY.xattr.user.x": "y"}
            file.addfile(info, io.BytesIO(data))
    assert pixels(tmp_path / "p.tar") == [0, 10, 20, 30]


def test_a_shard_of_nothing_but_hidden_members_is_refused_by_name(tmp_path, encode):
    path = written(tmp_path / "s.tar", samples(encode, ".cache/{:04d}"))
    with pytest.raises(ShardError, match=r"no member of a sample, only such as '.cache/0000.png'"):
        load(str(path), split="test", batch_size=2)


@pytest.mark.parametrize("key", ["img.v1.{:04d}", "2024.05.01-{:04d}", "a/b.c.{:04d}"])
@pytest.mark.parametrize("count", [4, 40])
def test_an_error_tells_where_a_key_was_cut(tmp_path, encode, key, count):
    path = written(tmp_path / "s.tar", samples(encode, key, count))
    cut, part = split_name(f"{key.format(0)}.png")
    with pytest.raises(ShardError) as raised:
        load(str(path), split="test", batch_size=2)
    assert f"'{cut}' was cut at the first dot of '{cut}.{part.split('.')[0]}" in str(raised.value)


@pytest.mark.parametrize("key", ["dir.v1/{:04d}", "a.b/c.d/{:04d}", "./x.y/{:04d}"])
def test_dots_of_folders_cut_no_key(tmp_path, encode, key):
    path = written(tmp_path / "s.tar", samples(encode, key))
    assert pixels(path) == [0, 10, 20, 30]


@pytest.mark.parametrize(
    "name", ["a.png", "a.seg.png", "x/y.cls", "x.y/z.png", "../a.png", "no", "x.y/no", "ä ö.JPG"]
)
def test_names_are_cut_as_webdataset_cuts_them(name):
    if "no" in name:
        assert split_name(name) == (None, None)
    else:
        assert split_name(name) == base_plus_ext(name)


def test_the_stages_stand_in_webdatasets_own_pipeline(tmp_path, encode):
    paths = []
    for number in range(3):
        members = samples(encode, f"{number}-{{:04d}}")
        paths.append(str(written(tmp_path / f"s{number}.tar", [("README", b""), *members])))
    pipeline = webdataset.DataPipeline(
        webdataset.SimpleShardList(paths),
        webdataset.split_by_worker,
        open_shards,
        expand_tars,
        check_members,
        group_by_keys,
        webdataset.decode("pil"),
        webdataset.to_tuple("__key__", "png", "cls"),
    )
    found = [(key, np.asarray(image)[0, 0, 0], label) for key, image, label in pipeline]
    assert found == [(f"{s}-{i:04d}", 10 * i, i % 2) for s in range(3) for i in range(4)]


def test_a_tar_that_ends_between_members_is_an_error_here_and_not_in_webdataset(tmp_path, encode):
    path = written(tmp_path / "s.tar", samples(encode))
    path.write_bytes(path.read_bytes()[: 4 * 1024])  # two samples, each member two blocks
    own = webdataset.DataPipeline(
        webdataset.SimpleShardList([str(path)]), open_shards, expand_tars, check_members
    )
    with pytest.raises(ShardError, match="cut off"):
        list(own)
    assert len(list(webdataset.WebDataset([str(path)], shardshuffle=False))) == 2


def test_verify_counts_the_samples_beside_what_is_passed_over(small_set):
    made = small_set(shards={"train": [3]})
    made.members["train-00000.tar.gz"].insert(2, ("README.md", b"# A set"))
    report = verify(made.write())["train"]
    assert (report.samples, report.problems) == (3, [])
