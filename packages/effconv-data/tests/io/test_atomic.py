"""Files whose names others may know."""

import os
import stat

import pytest
from effconv_data.io.atomic import append_text, opened_for_appending, remove_leftovers, write_bytes


def test_a_link_at_the_name_is_replaced_and_not_followed(tmp_path):
    victim, target = tmp_path / "victim", tmp_path / "index.json"
    victim.write_text("precious")
    target.symlink_to(victim)
    (tmp_path / "index.json.partial").symlink_to(victim)
    write_bytes(target, b"new")
    assert victim.read_text() == "precious"
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()


@pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
@pytest.mark.parametrize("kind", ["link", "link to nothing", "second name", "pipe", "folder"])
def test_nothing_is_appended_to_what_is_no_file_of_its_own(tmp_path, kind):
    victim, path = tmp_path / "victim", tmp_path / "file.partial"
    victim.write_text("precious")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "link to nothing":
        path.symlink_to(tmp_path / "new")
    elif kind == "second name":
        path.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises((ValueError, IsADirectoryError)), opened_for_appending(path):
        pass
    assert victim.read_text() == "precious"
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_has_the_mode_that_the_umask_gives(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "a.tar", b"x")
        append_text(tmp_path / "b.jsonl", "x")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~umask}


def test_a_refusal_names_the_file_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as refusal:
        write_bytes(tmp_path / "missing" / "a.txt", b"x")
    assert refusal.value.filename == str(tmp_path / "missing" / "a.txt")


def test_leftovers_of_killed_processes_go_and_nothing_else_does(tmp_path):
    ours = tmp_path / f".train-00000.tar.{'0f' * 8}.partial"
    others = [tmp_path / name for name in ("index.json.partial", ".a.partial", ".notes")]
    for path in (ours, *others):
        path.write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
