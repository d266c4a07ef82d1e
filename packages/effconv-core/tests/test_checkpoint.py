"""States on the disk: whole or not at all, the last two kept, a damaged one noticed."""

import errno
import os
import random

import pytest
import torch
from effconv_core import checkpoint, load_training_state, save_training_state
from effconv_core.checkpoint import read_progress
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

pytestmark = pytest.mark.faults


def made(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def write(path, *seeds):
    for seed in seeds:
        save_training_state(path, *made(seed), {"epoch": seed, "sha256": "0" * 64})


def loaded(path):
    """The seed that a file was written with, after a look at every value."""
    model, optimizer = made(99)
    seed = load_training_state(path, model, optimizer)["epoch"]
    expected, expected_optimizer = made(seed)
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    states = optimizer.state_dict()["state"], expected_optimizer.state_dict()["state"]
    for ours, theirs in zip(states[0].values(), states[1].values(), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    return seed


def test_the_last_two_states_are_kept(tmp_path):
    path = tmp_path / "s.safetensors"
    write(path, 1, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.previous"]
    assert loaded(path) == 3
    assert loaded(tmp_path / "s.safetensors.previous") == 2


def test_every_flipped_bit_is_noticed_or_does_nothing(tmp_path):
    path, previous = tmp_path / "s", tmp_path / "s.previous"
    write(path, 1, 2)
    good, before = path.read_bytes(), previous.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    source, kept = random.Random(0), []
    name = range(good.index(b'"sha256":') + 1, good.index(b'"sha256":') + 7)
    # Mostly of the header, where a flip can do anything.
    places = {*source.sample(range(header), 400), *source.sample(range(len(good)), 100), *name}
    for place in sorted(places):
        bad = bytearray(good)
        bad[place] ^= 1 << source.randrange(8)
        path.write_bytes(bad)
        previous.write_bytes(before)
        if read_progress(path)["epoch"] == 1:
            # So that the next state does not push out the good one for the damaged one.
            assert path.read_bytes() == before
        else:
            kept.append(place)
    # All but a flip in the name "sha256" itself, after which everything else is still right.
    assert set(kept) <= set(name)
    path.write_bytes(good)
    assert loaded(path) == 2


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_state_cut_off_falls_back_to_the_one_before(length, tmp_path, caplog):
    path = tmp_path / "s.safetensors"
    write(path, 1, 2)
    path.write_bytes(path.read_bytes()[:length])
    assert read_progress(path)["epoch"] == 1
    assert "was damaged" in caplog.text
    assert "the state before it is taken" in caplog.text
    write(path, 3)
    assert loaded(path) == 3
    assert loaded(tmp_path / "s.safetensors.previous") == 1


def test_without_a_whole_state_before_it_the_sentence_says_so(tmp_path):
    path = tmp_path / "s.safetensors"
    write(path, 1)
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="cut off.*nor is there one before it; delete it"):
        read_progress(path)
    with pytest.raises(FileNotFoundError):
        read_progress(tmp_path / "none")


def test_a_deleted_state_means_a_new_start(tmp_path):
    path = tmp_path / "s.safetensors"
    write(path, 1, 2)
    path.unlink()
    write(path, 3)
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="nor is there one before it"):
        read_progress(path)


def test_a_state_without_a_sum_is_read(tmp_path):
    path = tmp_path / "s.safetensors"
    write(path, 1)
    with safe_open(path, "pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key != "sha256"}
        save_file({name: file.get_tensor(name) for name in file.keys()}, path, metadata)  # noqa: SIM118
    assert loaded(path) == 1


def test_where_files_have_no_second_names_a_copy_is_kept(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    write(tmp_path / "s", 1, 2)
    assert loaded(tmp_path / "s") == 2
    assert loaded(tmp_path / "s.previous") == 1


def test_of_two_ranks_that_find_a_damaged_state_both_read_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "s"
    write(path, 1, 2)
    path.write_bytes(b"no")
    look, looks = checkpoint._read_whole, []

    def another_is_faster(candidate):
        looks.append(candidate)
        if len(looks) == 2:
            (tmp_path / "s.previous").replace(path)
        return look(candidate)

    monkeypatch.setattr(checkpoint, "_read_whole", another_is_faster)
    assert read_progress(path)["epoch"] == 1
