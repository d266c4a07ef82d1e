"""Training states: whole or not at all, the last two, and those of every released version."""

import contextlib
import errno
import importlib.util
import json
import logging
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from effconv_core import (
    SearchConfig,
    SizePlan,
    apply_plan,
    load,
    load_training_state,
    recipe,
    save_training_state,
    search,
)
from effconv_core.engine.train import TrainConfig, train
from effconv_core.io import atomic, checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

RELEASED = Path(__file__).parents[1] / "released"
VERSIONS = sorted(folder.name for folder in RELEASED.iterdir() if (folder / "paper.json").exists())

spec = importlib.util.spec_from_file_location("write", RELEASED / "write.py")
write = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write)


def one_step(seed=0, **optimizer):
    """A module and an optimizer that has slots."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(3, 2).requires_grad_(True)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_there_are_files_of_every_version_before_this_one():
    assert VERSIONS == ["0.1.0", "0.2.0"]


@pytest.mark.parametrize("name", ["paper", "default"])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_interrupted_search_of_a_released_version_goes_on_to_its_plan(version, name, tmp_path):
    folder = RELEASED / version
    path = tmp_path / "search.safetensors"
    shutil.copy(folder / f"{name}.safetensors", path)
    with safe_open(path, "pt") as file:
        config = SearchConfig(**json.loads(file.metadata()["progress"])["config"])
    steps = []
    plan = search(
        write.network(),
        write.Loader(),
        budget=write.BUDGET,
        config=config,
        checkpoint=path,
        on_step=steps.append,
    )
    assert [(step.epoch, step.step) for step in steps] == [(1, i) for i in range(4)]
    expected = SizePlan.load(folder / f"{name}.json")
    assert plan.sizes == expected.sizes
    assert list(plan.soft_sizes.values()) == pytest.approx(list(expected.soft_sizes.values()))
    with safe_open(path, "pt") as file:
        assert file.metadata()["schema"] == "2"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_training_and_a_network_of_a_released_version_are_read(version):
    folder = RELEASED / version
    plan = SizePlan.load(folder / "default.json")
    cnn = load(write.network(), folder / "cnn.safetensors")
    for name, value in load_file(folder / "cnn.safetensors").items():
        torch.testing.assert_close(cnn.state_dict()[name], value, rtol=0, atol=0)
    trained = apply_plan(write.network(), plan)
    optimizer = write.training(trained)
    progress = load_training_state(folder / "training.safetensors", trained, optimizer)
    assert progress == {"epoch": 1}
    torch.testing.assert_close(trained.state_dict(), cnn.state_dict(), rtol=0, atol=0)
    slots = optimizer.state_dict()["state"]
    assert all(slots[i]["momentum_buffer"].abs().sum() > 0 for i in range(len(slots)))


def test_a_search_of_a_released_version_with_other_settings_is_refused(tmp_path):
    path = tmp_path / "search.safetensors"
    shutil.copy(RELEASED / "0.2.0" / "default.safetensors", path)
    with safe_open(path, "pt") as file:
        config = SearchConfig(**json.loads(file.metadata()["progress"])["config"])
    with pytest.raises(ValueError, match=r"whose allowed was .* delete it to start again"):
        search(
            write.network(),
            write.Loader(),
            budget=write.BUDGET,
            config=config,
            checkpoint=path,
            allowed=range(1, 8, 2),
        )


def test_the_last_two_are_kept(tmp_path):
    path, before = tmp_path / "s.safetensors", tmp_path / "s.previous.safetensors"
    model, optimizer = one_step()
    for epoch in range(3):
        save_training_state(path, model, optimizer, {"epoch": epoch})
        assert before.exists() == (epoch > 0)
    assert load_training_state(path, model, optimizer) == {"epoch": 2}
    assert load_training_state(before, model, optimizer) == {"epoch": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == [before.name, path.name]


def test_where_there_are_no_hard_links_the_last_two_are_kept_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    test_the_last_two_are_kept(tmp_path)


def test_a_deleted_state_does_not_come_back_from_the_one_before(tmp_path):
    path = tmp_path / "s.safetensors"
    model, optimizer = one_step()
    for epoch in range(2):
        save_training_state(path, model, optimizer, {"epoch": epoch})
    path.unlink()
    with pytest.raises(FileNotFoundError):
        load_training_state(path, model, optimizer)
    save_training_state(path, model, optimizer, {"epoch": 7})
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not a readable training state"):
        load_training_state(path, model, optimizer)


def damaged(content: bytes, how: str, draw: random.Random) -> bytes:
    if how == "empty":
        return b""
    if how == "zeros":
        return bytes(len(content))
    place = draw.randrange(len(content))
    if how == "cut":
        return content[:place]
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


@pytest.mark.parametrize("how", ["empty", "zeros", "cut", "flipped"])
def test_a_damaged_state_is_noticed_and_the_one_before_taken(tmp_path, caplog, how):
    path, draw = tmp_path / "s.safetensors", random.Random(0)
    models = [one_step(seed) for seed in range(2)]
    for epoch, pair in enumerate(models):
        save_training_state(path, *pair, {"epoch": epoch})
    before = tmp_path / "s.previous.safetensors"
    whole, whole_before = path.read_bytes(), before.read_bytes()
    for _ in range(1 if how in ("empty", "zeros") else 300):
        path.write_bytes(damaged(whole, how, draw))
        before.write_bytes(whole_before)
        model, optimizer = one_step(9)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "effconv_core"):
            assert load_training_state(path, model, optimizer) == {"epoch": 0}
        assert "s.safetensors is not a readable training state" in caplog.text
        assert "going on from the state before it" in caplog.text
        torch.testing.assert_close(model.state_dict(), models[0][0].state_dict(), rtol=0, atol=0)
        found, expected = (o.state_dict()["state"] for o in (optimizer, models[0][1]))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        # Which takes its place, so that the next state does not keep the damaged one beside it.
        assert path.read_bytes() == whole_before
        assert not before.exists()


def test_two_damaged_states_are_refused_with_the_remedy(tmp_path):
    path = tmp_path / "s.safetensors"
    model, optimizer = one_step()
    for epoch in range(2):
        save_training_state(path, model, optimizer, {"epoch": epoch})
    for file in tmp_path.iterdir():
        file.write_bytes(b"{}")
    with pytest.raises(ValueError, match=r"s\.safetensors is not a readable .* delete it"):
        load_training_state(path, model, optimizer)


def test_a_search_goes_on_from_the_state_before_a_damaged_one(tmp_path, caplog):
    keywords = {"budget": write.BUDGET, "config": write.config("default")}
    path = tmp_path / "s.safetensors"
    straight = search(write.network(), write.Loader(), **keywords)
    steps = []
    with pytest.raises(KeyboardInterrupt):
        search(write.network(), write.Loader(2), checkpoint=path, **keywords)  # in the tournament
    path.write_bytes(path.read_bytes()[:-1])
    found = search(
        write.network(), write.Loader(), checkpoint=path, on_step=steps.append, **keywords
    )
    assert {step.epoch for step in steps} == {1}
    assert found == straight
    assert "going on from the state before it" in caplog.text


def test_a_state_of_a_later_schema_is_refused_and_not_passed_over(tmp_path, monkeypatch):
    path = tmp_path / "s.safetensors"
    model, optimizer = one_step()
    save_training_state(path, model, optimizer, {"epoch": 0})
    monkeypatch.setattr(checkpoint, "SCHEMA", 3)
    save_training_state(path, model, optimizer, {"epoch": 1})
    with pytest.raises(ValueError, match=r"has schema 3; this version reads 1 and 2, so update"):
        load_training_state(path, model, optimizer)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizer_that_goes_on_has_its_slots_laid_out_as_before(kind, tmp_path):
    momentum = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = kind([*model.parameters(), nn.Parameter(torch.zeros(()))], lr=0.1, **momentum)
    images = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)

    def look():
        return {
            (number, slot): (value.clone(), value.stride(), value.dtype)
            for number, slots in optimizer.state_dict()["state"].items()
            for slot, value in slots.items()
        }

    for _ in range(2):
        optimizer.zero_grad()
        (model(images).sum() + optimizer.param_groups[0]["params"][2]).backward()
        optimizer.step()
    before = look()
    assert any(stride[1] == 1 for _, stride, _ in before.values() if len(stride) == 4)
    save_training_state(tmp_path / "state.safetensors", model, optimizer, {})
    load_training_state(tmp_path / "state.safetensors", model, optimizer)
    after = look()
    assert before.keys() == after.keys()
    for key, (value, *rest) in after.items():
        assert torch.equal(value, before[key][0])
        assert tuple(rest) == before[key][1:]


def test_a_state_of_another_network_is_refused(tmp_path):
    path = tmp_path / "s.safetensors"
    model, optimizer = one_step()
    save_training_state(path, model, optimizer, {})
    other = nn.Linear(4, 2)
    with pytest.raises(ValueError, match="does not fit the model"):
        load_training_state(path, other, torch.optim.AdamW(other.parameters()))


@pytest.mark.parametrize("step", ["save_file", "fsync", "link", "first", "second"])
def test_an_interruption_at_any_step_of_writing_leaves_a_whole_state(tmp_path, monkeypatch, step):
    path = tmp_path / "s.safetensors"
    model, optimizer = one_step()
    for epoch in range(2):
        save_training_state(path, model, optimizer, {"epoch": epoch})

    class KilledError(BaseException):
        pass

    replaced, link, replace = [], Path.hardlink_to, Path.replace

    def stop(*_, **__):
        raise KilledError

    def stop_at(self, target):
        replaced.append(target)
        if len(replaced) == ("first", "second").index(step) + 1:
            raise KilledError
        return replace(self, target)

    def linked(self, target):
        link(self, target)
        raise KilledError

    if step == "save_file":
        monkeypatch.setattr(atomic, "save_file", stop)
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", stop)
    elif step == "link":
        monkeypatch.setattr(Path, "hardlink_to", linked)
    else:
        monkeypatch.setattr(Path, "replace", stop_at)
    with pytest.raises(KilledError):
        save_training_state(path, model, optimizer, {"epoch": 2})
    monkeypatch.undo()
    assert load_training_state(path, model, optimizer) == {"epoch": 1}
    save_training_state(path, model, optimizer, {"epoch": 2})
    assert load_training_state(path, model, optimizer) == {"epoch": 2}
    before = tmp_path / "s.previous.safetensors"
    assert load_training_state(before, model, optimizer) == {"epoch": 1}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_state_that_cannot_be_written_is_one_sentence_and_leaves_the_old_ones(
    tmp_path, monkeypatch
):
    path = tmp_path / "s.safetensors"
    model, optimizer = one_step()
    save_training_state(path, model, optimizer, {"epoch": 0})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*s\.safetensors"):
        save_training_state(path, model, optimizer, {"epoch": 1})
    for whole in tmp_path.iterdir():
        assert load_training_state(whole, model, optimizer) == {"epoch": 0}


@pytest.mark.parametrize(
    "progress",
    [
        {"epoch": -5},
        {"epoch": 10**6},
        {"epoch": "1"},
        {"epoch": 1.5},
        {},
        {"epoch": 1, "config": [1]},
        {"epoch": 1, "layers": 7},
    ],
)
def test_forged_progress_is_refused_by_searches_and_trainings(tmp_path, progress):
    torch.manual_seed(0)
    path = tmp_path / "s.safetensors"
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    loader = [(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))]
    config = TrainConfig(epochs=1)
    train(model, loader, config, checkpoint=path)
    state = checkpoint.read_training_state(path)
    forged = {"config": state.progress["config"], **progress}
    save_training_state(path, model, torch.optim.SGD(model.parameters(), 0.1), forged)
    with pytest.raises(ValueError, match=r"s\.safetensors"):
        train(model, loader, config, checkpoint=path)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(ValueError, match=r"s\.safetensors"):
        search(net.append(nn.Flatten()), loader, budget=58, config=recipe("bank"), checkpoint=path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("param_groups", "[" * 100_000),
        ("param_groups", '[{"params": [0], "lr": 1e999}]'),
        ("param_groups", '[{"params": ["a"]}]'),
        ("param_groups", "[7]"),
        ("param_groups", "{}"),
        ("progress", '{"epoch": 1' + "0" * 400 + "}"),
        ("progress", "[1]"),
        ("progress", '{"\\ud800": 1}'),
    ],
)
def test_a_forged_header_is_one_sentence(tmp_path, name, text):
    path = tmp_path / "s.safetensors"
    model, optimizer = one_step()
    save_training_state(path, model, optimizer, {})
    with safe_open(path, "pt") as file:
        header = file.metadata() | {name: text}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header["sha256"] = checkpoint._digest(tensors, header)
    save_file(tensors, path, metadata=header)
    with pytest.raises(ValueError, match=r"s\.safetensors .* delete it"):
        load_training_state(path, model, optimizer)


@pytest.mark.parametrize("name", ["optimizer.x", "optimizer.-1.step", "optimizer.9.exp_avg"])
def test_a_forged_slot_is_one_sentence(tmp_path, name):
    path = tmp_path / "s.safetensors"
    model, optimizer = one_step()
    save_training_state(path, model, optimizer, {})
    with safe_open(path, "pt") as file:
        header = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    tensors = {k: v for k, v in tensors.items() if not k.startswith("optimizer.0.")}
    tensors[name] = torch.zeros(1)
    header["sha256"] = checkpoint._digest(tensors, header)
    save_file(tensors, path, metadata=header)
    with contextlib.suppress(ValueError):  # what PyTorch takes is its own affair
        load_training_state(path, model, optimizer)
