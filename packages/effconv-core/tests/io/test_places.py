"""Places that cannot be written to, and states that cannot be held, are seen before the work."""

import os
from pathlib import Path

import pytest
import torch
from effconv_core import (
    Latency,
    SearchableCNN,
    SizePlan,
    apply_plan,
    load,
    load_training_state,
    recipe,
    save,
    save_training_state,
    search,
)
from effconv_core.cost import latency
from effconv_core.engine.train import TrainConfig, train
from effconv_core.io.atomic import check_place
from torch import nn

BATCHES = [(torch.randn(4, 3, 8, 8), torch.arange(4))] * 2
QUICK = recipe("bank", epochs=1, finalists=2, least_steps=0)


class Kept(nn.Module):
    """Has a state beside its tensors."""

    def __init__(self, state=None):
        super().__init__()
        self.state = state

    def forward(self, images):
        return images

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        self.state = state


def net(*more):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 4),
        *more,
    )


def searched(model, path, on_step):
    search(model, BATCHES, budget=280, config=QUICK, checkpoint=path, on_step=on_step)


def trained(model, path, on_step):
    train(model, BATCHES, TrainConfig(epochs=1, lr=1e-3), checkpoint=path, on_step=on_step)


def in_no_folder(folder):
    return folder / "no" / "state"


def in_a_file(folder):
    (folder / "file").touch()
    return folder / "file" / "state"


def a_folder(folder):
    (folder / "state").mkdir()
    return folder / "state"


def read_only(folder):
    (folder / "closed").mkdir(mode=0o500)
    if os.access(folder / "closed", os.W_OK):
        pytest.skip("this user may write anywhere")
    return folder / "closed" / "state"


def a_link_to_nowhere(folder):
    (folder / "state").symlink_to(folder / "missing")
    return folder / "state"


def a_link_to_a_folder(folder):
    (folder / "other").mkdir()
    (folder / "state").symlink_to(folder / "other")
    return folder / "state"


PLACES = [in_no_folder, in_a_file, a_folder, read_only, a_link_to_nowhere, a_link_to_a_folder]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("use", [searched, trained])
def test_a_checkpoint_that_cannot_be_written_is_refused_before_a_step(use, place, tmp_path):
    path, steps = place(tmp_path), []
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="state"):
        use(net(), path, steps.append)
    assert not steps
    assert sorted(tmp_path.rglob("*")) == before


def others(path):
    path.write_text("mine")


def a_link_to_others(path):
    path.with_name("mine").write_text("mine")
    path.symlink_to(path.with_name("mine"))


def too_long(path):
    return path.with_name("n" * 220 + "state")  # of which the one before has a longer name


@pytest.mark.parametrize("what", [others, a_link_to_others, Path.mkdir, too_long])
@pytest.mark.parametrize("use", [searched, trained])
def test_a_state_before_that_could_not_be_kept_is_refused_before_a_step(use, what, tmp_path):
    path, steps = tmp_path / "state.safetensors", []
    path = what(tmp_path / "state.previous.safetensors") or path
    before = {p: p.is_file() and p.read_text() for p in tmp_path.iterdir()}
    with pytest.raises((OSError, ValueError), match="state"):
        use(net(), path, steps.append)
    assert not steps
    assert {p: p.is_file() and p.read_text() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("place", PLACES)
def test_a_table_that_cannot_be_written_is_refused_before_a_measurement(
    place, tmp_path, monkeypatch
):
    monkeypatch.setattr(latency, "_measure", lambda *_: pytest.fail("measured"))
    kind = (OSError, ValueError) if place in (a_folder, a_link_to_a_folder) else OSError
    with pytest.raises(kind, match="state"):
        Latency(torch.zeros(1, 3, 8, 8), place(tmp_path), repetitions=1)(SearchableCNN(net()))


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    check_place(tmp_path / "new")
    assert not list(tmp_path.iterdir())
    (tmp_path / "old").write_text("kept")
    check_place(tmp_path / "old")
    assert (tmp_path / "old").read_text() == "kept"
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]


STATES = {
    "a mapping": {"scale": 1.5, "names": ["a", None], "deep": {"x": True}},
    "a number": 7,
    "text": "ünï",
    "nothing": None,
    "a tensor": torch.arange(3.0),
}


@pytest.mark.parametrize("what", STATES)
@pytest.mark.parametrize("use", [searched, trained])
def test_a_module_may_have_a_state_of_its_own(use, what, tmp_path):
    steps = []
    for _ in range(2):  # the second goes on from the file
        use(net(Kept(STATES[what])), tmp_path / "state.safetensors", steps.append)
    assert len(steps) == 2


@pytest.mark.parametrize("what", STATES)
def test_a_state_comes_back_as_it_was(what, tmp_path):
    model, fresh = net(Kept(STATES[what])), net(Kept(torch.zeros(3)))
    optimizers = [torch.optim.SGD(m.parameters(), 0.1) for m in (model, fresh)]
    save_training_state(tmp_path / "state", model, optimizers[0], {"epoch": 1})
    load_training_state(tmp_path / "state", fresh, optimizers[1])
    plan = SizePlan({"1": 5})
    save(apply_plan(model, plan), plan, tmp_path / "cnn")
    for found in (fresh, load(net(Kept(torch.zeros(3))), tmp_path / "cnn")):
        state, wanted = found[-1].state, STATES[what]
        assert torch.equal(state, wanted) if isinstance(wanted, torch.Tensor) else state == wanted


@pytest.mark.parametrize("state", [{1: 2}, {"x": {1}}, b"bytes", [torch.zeros(1)], (1, 2)], ids=str)
@pytest.mark.parametrize("use", [searched, trained])
def test_what_a_file_cannot_hold_is_named_before_a_step(use, state, tmp_path):
    steps = []
    with pytest.raises(TypeError, match=r"5\._extra_state"):
        use(net(Kept(state)), tmp_path / "state", steps.append)
    assert not steps
    assert not list(tmp_path.iterdir())
