"""Indexes that are malformed are refused by file and place."""

import pytest
from effconv_data import read_split


def set_row(**changes):
    return lambda index: index["splits"]["train"]["shards"][1].update(changes)


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.pop("classes"),
        lambda index: index.update(classes=[]),
        lambda index: index.update(classes=["cat", "cat"]),
        lambda index: index.update(classes=["cat", 1]),
        lambda index: index.update(classes=[["cat"], ["dog"]]),
        lambda index: index.update(classes="cat"),
        lambda index: index.pop("splits"),
        lambda index: index.update(splits=[]),
        lambda index: index["splits"].update(train=None),
        lambda index: index["splits"]["train"].update(shards=[]),
        lambda index: index["splits"]["train"].update(shards=["train-00000.tar.gz"]),
        lambda index: index["splits"]["train"].update(samples=8),
        lambda index: index["splits"]["train"].pop("samples"),
        set_row(samples=0),
        set_row(samples="3"),
        set_row(samples=True),
        set_row(file="../train-00001.tar.gz"),
        set_row(file="/etc/passwd.tar"),
        set_row(file="pipe:touch pwned.tar | cat"),
        set_row(file="train-00001.zip"),
        set_row(file="train-00000.tar.gz"),
        set_row(file=None),
        set_row(sha256="abc"),
        set_row(sha256=1),
    ],
)
def test_malformed_index_is_refused(small_set, damage):
    made = small_set()
    damage(made.index)
    folder = made.write()
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        read_split(folder, "train")
    assert "\n" not in str(raised.value)
    assert not (folder / "pwned.tar").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"cat"', "\x00"])
def test_index_that_is_no_object_is_refused(small_set, text):
    folder = small_set().write()
    (folder / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index.json"):
        read_split(folder, "train")


def test_index_of_other_bytes_is_refused(small_set):
    folder = small_set().write()
    (folder / "index.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"index.json"):
        read_split(folder, "train")
