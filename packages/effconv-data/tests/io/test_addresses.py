"""No address runs a program unless the caller of `load` says that it may."""

import os

import pytest
from effconv_data import ShardError, StreamedBatches, cli, load, read_split, verify
from effconv_data.io.addresses import check_address, is_http, is_remote
from effconv_data.shards.index import Shard

SCHEMES = ("pipe", "PIPE", "s3", "gs", "sftp", "ftp", "file", "hf", "ais", "htgs", "x+y")


def addresses(folder):
    marker = folder / "ran"
    return [f"{s}:touch {marker}" if s.lower() == "pipe" else f"{s}://{marker}" for s in SCHEMES]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Let every program that webdataset starts leave a file instead."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("aws", "gsutil", "curl", "ais", "s3cmd", "touch"):
        (folder / name).write_text(f"#!/bin/sh\necho > {tmp_path}/ran\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize("suffix", ["", ".tar", "/x-{0..1}.tar"])
def test_load_and_its_like_refuse_all_but_files_and_http(programs, suffix):
    for address in addresses(programs):
        place = address + suffix
        for read in (
            lambda place: load(place, batch_size=1),
            lambda place: load([place], batch_size=1),
            lambda place: load(f"{programs}/none.tar::{place}", batch_size=1),
            lambda place: load("set", root=place, batch_size=1),
            lambda place: read_split(place, "train"),
            verify,
        ):
            with pytest.raises((ValueError, FileNotFoundError)):
                read(place)
    assert not (programs / "ran").exists()


@pytest.mark.parametrize("command", ["show", "verify"])
def test_the_commands_refuse_them(programs, command, capsys):
    for address in addresses(programs):
        assert cli.main([command, address]) == 2
        assert address in capsys.readouterr().err
    assert not (programs / "ran").exists()


def test_streaming_refuses_them_where_they_are_opened(programs):
    for address in addresses(programs):
        batches = StreamedBatches(
            [Shard(address, 1, None)],
            classes=("a",),
            image_shape=(1, 1, 1),
            batch_size=1,
            mean=(0.5,),
            std=(0.5,),
            workers=0,
        )
        with pytest.raises(ShardError, match="allow_commands"):
            next(iter(batches))
    assert not (programs / "ran").exists()


def test_a_program_runs_where_the_caller_says_so(programs):
    with pytest.raises(ShardError):
        load(f"pipe:/bin/sh -c 'echo > {programs}/ran'", batch_size=1, allow_commands=True)
    assert (programs / "ran").exists()


@pytest.mark.parametrize(
    "place", ["data/x.tar", "C:\\data\\x.tar", "https://a/b", "HTTP://a", "a:b"]
)
def test_what_is_read_without_leave(place):
    check_address(place)
    assert is_remote(place) == is_http(place) == place.lower().startswith("http")
