"""What lies in users' tars beside samples, and where a key is cut."""

import importlib.util
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from effconv_data import ShardError, load, verify
from effconv_data.shards.stages import check_members, expand_tars, open_shards, split_name
from webdataset.tariterators import base_plus_ext, group_by_keys

spec = importlib.util.spec_from_file_location(
    "sample_tars", Path(__file__).parents[1] / "sample_tars.py"
)
sample_tars = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sample_tars)
written, samples, pixels = sample_tars.written, sample_tars.samples, sample_tars.pixels


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
    with pytest.raises(ShardError, match=r"'\.cache/0000\.png'"):
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
