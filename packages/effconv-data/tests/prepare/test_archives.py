"""Every official archive, built here byte for byte, read back from the shards made of it."""

import bz2
import gzip
import importlib.util
import json
import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
from effconv_data import read_split
from effconv_data.prepare import prepare

spec = importlib.util.spec_from_file_location("official", Path(__file__).with_name("official.py"))
official = importlib.util.module_from_spec(spec)
spec.loader.exec_module(official)
FORMATS, counted, run, write_tar = (
    official.FORMATS,
    official.counted,
    official.run,
    official.write_tar,
)
mnist, cifar_python_packed, cifar_binary_packed = (
    official.mnist,
    official.cifar_python_packed,
    official.cifar_binary_packed,
)
stl_files, stl_packed, stl_unpacked = (
    official.stl_files,
    official.stl_packed,
    official.stl_unpacked,
)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.mark.parametrize("format", FORMATS)
def test_pixels_labels_and_names_come_back(format, source, tmp_path):
    made, names = format(source)
    prepared = run(format, source, tmp_path / "out", shard_samples=7)
    assert prepared.samples == {split: len(labels) for split, (_, labels) in made.items()}
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    for split, (pixels, labels) in made.items():
        found = read_split(tmp_path / "out", split)
        wanted = pixels.transpose(0, 3, 1, 2)
        assert list(found.classes) == names
        assert found.images.shape == wanted.shape
        assert counted(found.images.numpy(), found.labels) == counted(wanted, labels)
        assert (
            index["splits"][split]["class_counts"]
            == np.bincount(labels, minlength=len(names)).tolist()
        )
    assert index["image_shape"] == list(wanted.shape[1:])
    train = made["train"][0] / 255
    assert index["mean"] == pytest.approx(train.mean((0, 1, 2)), rel=1e-12)
    assert index["std"] == pytest.approx(train.std((0, 1, 2)), rel=1e-12)


@pytest.mark.parametrize("format", FORMATS)
def test_keys_are_numbers_in_the_order_of_the_archive(format, source, tmp_path):
    made, _ = format(source)
    run(format, source, tmp_path / "out", splits=["train"], shard_samples=9)
    found = {}
    for path in sorted((tmp_path / "out").glob("train-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".cls"):
                    found[member.name] = int(tar.extractfile(member).read())
    labels = made["train"][1]
    assert found == {f"{number:08d}.cls": label for number, label in enumerate(labels)}
    assert list(found) != sorted(found)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_alone_is_the_same_split(format, split, source, tmp_path):
    format(source)
    run(format, source, tmp_path / "both")
    run(format, source, tmp_path / "one", splits=[split])
    both, one = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.tar")}
        for name in ("both", "one")
    )
    assert one
    assert one == {name: data for name, data in both.items() if name.startswith(split)}
    index = json.loads((tmp_path / "one" / "index.json").read_text())
    assert list(index["splits"]) == [split]
    assert ("mean" in index) == (split == "train")


OFFICIAL = {
    mnist: "train-images-idx3-ubyte.gz",
    cifar_python_packed: "cifar-10-python.tar.gz",
    cifar_binary_packed: "cifar-10-binary.tar.gz",
    stl_packed: "stl10_binary.tar.gz",
}


@pytest.mark.parametrize("format", OFFICIAL)
def test_an_archive_that_is_not_the_official_one_is_refused(format, source, tmp_path):
    format(source)
    with pytest.raises(ValueError, match=rf"{OFFICIAL[format]} .*md5.*--no-ch"):
        run(format, source, tmp_path / "out", checksum=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_every_missing_file_is_named(format, source, tmp_path):
    format(source)
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        if path.name in ("unlabeled_X.bin", "map_clsloc.txt"):
            continue
        hidden = path.rename(tmp_path / "hidden")
        word = path.name.removesuffix(".gz").removesuffix(".npz")
        with pytest.raises(FileNotFoundError, match=rf"{word}.*; "):
            run(format, source, tmp_path / "out")
        hidden.rename(path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["/usr/../{}/evil", "../evil", "{}/evil"])
def test_members_that_point_elsewhere_are_never_written(place, source, tmp_path):
    _, files = stl_files()
    evil = place.format(str(tmp_path).lstrip("/"))
    write_tar(source / "stl10_binary.tar.gz", {evil: b"evil", **files})
    before = set(tmp_path.rglob("*"))
    prepared = run(stl_packed, source, tmp_path / "out")
    assert prepared.samples == {"train": 5, "test": 3}
    assert not list(tmp_path.parent.rglob("evil"))
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before


def test_a_member_that_is_a_link_is_not_followed(source, tmp_path):
    _, files = stl_files()
    del files["stl10_binary/test_X.bin"]
    links = [("stl10_binary/test_X.bin", "train_X.bin")]
    write_tar(source / "stl10_binary.tar.gz", files, links)
    with pytest.raises(FileNotFoundError, match="test_X"):
        run(stl_packed, source, tmp_path / "out")


def test_the_unlabelled_images_are_left_out_and_that_is_said(source, tmp_path):
    stl_unpacked(source)
    assert "unlabeled_X.bin" in run(stl_unpacked, source, tmp_path / "out").notes[0]
    (source / "stl10_binary" / "unlabeled_X.bin").unlink()
    run(stl_unpacked, source, tmp_path / "other")


@pytest.mark.parametrize("end", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("pack", [bytes, bz2.compress, lzma.compress])
@pytest.mark.parametrize("format", [stl_packed, cifar_binary_packed])
def test_an_archive_packed_anew_is_read_whatever_its_name(format, pack, end, source, tmp_path):
    format(source)
    (path,) = source.glob("*.tar.gz")
    data = pack(gzip.decompress(path.read_bytes()))
    path.unlink()
    (source / (path.name.removesuffix(".gz") + end)).write_bytes(data)
    name = "stl10" if format is stl_packed else "cifar10"
    with pytest.raises(ValueError, match="md5"):
        prepare(name, source, out=tmp_path / "out", workers=1)
    made = prepare(name, source, out=tmp_path / "out", workers=1, checksum=False)
    assert set(made.samples) == {"train", "test"}
    assert len(read_split(tmp_path / "out", "test").labels) == made.samples["test"]


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_a_packed_archive_has_the_limits_of_any(pack, source, tmp_path, monkeypatch):
    monkeypatch.setattr("effconv_data.prepare.archives.LARGEST_FILE", 1000)
    stl_packed(source)
    path = source / "stl10_binary.tar.gz"
    path.write_bytes(pack(gzip.decompress(path.read_bytes())))
    with pytest.raises(ValueError, match="1000"):
        prepare("stl10", source, out=tmp_path / "out", checksum=False)
