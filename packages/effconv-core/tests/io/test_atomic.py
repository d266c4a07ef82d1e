import os
import stat

import pytest
import torch
from effconv_core.io.atomic import append_text, write_text, written_whole
from safetensors.torch import save_file


def test_a_link_prepared_under_any_name_is_not_followed(tmp_path):
    victim, target = tmp_path / "victim", tmp_path / "plan.json"
    victim.write_text("precious")
    target.symlink_to(victim)
    (tmp_path / "plan.json.partial").symlink_to(victim)
    write_text(target, "new")
    assert victim.read_text() == "precious"
    assert target.read_text() == "new"
    assert not target.is_symlink()


def test_appending_follows_no_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "metrics.jsonl").symlink_to(victim)
    with pytest.raises(OSError):  # noqa: PT011
        append_text(tmp_path / "metrics.jsonl", "row\n")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_has_the_mode_that_the_umask_gives(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "x")
        with written_whole(tmp_path / "b.safetensors") as temporary:
            save_file({"w": torch.zeros(1)}, temporary)
        append_text(tmp_path / "c.txt", "x")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~umask}


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")

    def fail_half_way():
        with written_whole(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_refusal_names_the_file_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as refusal:
        write_text(tmp_path / "missing" / "a.txt", "x")
    assert refusal.value.filename == str(tmp_path / "missing" / "a.txt")
