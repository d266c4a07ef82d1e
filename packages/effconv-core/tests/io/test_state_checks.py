"""Files that were written for something else, or by somebody else, are refused by name."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from effconv_core import (
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
from effconv_core.engine.train import TrainConfig, train
from effconv_core.io import checkpoint
from safetensors.torch import load_file, save_file
from torch import nn

CONFIG = TrainConfig(epochs=2, batch_size=4)
IMAGES = torch.rand(4, 1, 9, 9, generator=torch.Generator().manual_seed(0))
LOADER = [(IMAGES, torch.tensor([0, 1, 2, 0]))] * 2
BUDGET = 211


def net():
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return network


# Weights of `save`.

FORGED_WEIGHTS = {
    "int8": ("5.weight", lambda t: t.to(torch.int8), "int8"),
    "uint8": ("1.bias", lambda t: t.to(torch.uint8), "uint8"),
    "booleans": ("0.weight", lambda t: t > 0, "bool"),
    "complex": ("0.weight", lambda t: t.to(torch.complex64), "complex64"),
    "NaN": ("5.bias", lambda t: t * torch.nan, "finite"),
    "infinity": ("1.weight", lambda t: t / 0, "finite"),
    "float counts": ("2.num_batches_tracked", lambda t: t.float(), "float32"),
    "float statistics": ("2.running_var", lambda t: t.to(torch.int8), "int8"),
}


@pytest.mark.parametrize("how", FORGED_WEIGHTS)
def test_weights_of_another_kind_are_refused_by_name(how, tmp_path):
    name, change, named = FORGED_WEIGHTS[how]
    path, plan = tmp_path / "cnn.safetensors", SizePlan({"1": 3})
    save(apply_plan(net(), plan), plan, path)
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, path, metadata={"plan": plan.to_json()})
    with pytest.raises(ValueError, match=rf"'{name}'.*{named}"):
        load(net(), path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken(dtype, tmp_path):
    plan = SizePlan({"1": 3})
    save(apply_plan(net(), plan).to(dtype), plan, tmp_path / "cnn.safetensors")
    assert load(net(), tmp_path / "cnn.safetensors")[5].weight.dtype == torch.float32


# States of `save_training_state`.


def write_state(path, tensors, groups, progress):
    """Write a state as if it were whole, whatever it holds."""
    metadata = {"schema": "2", "param_groups": json.dumps(groups), "progress": json.dumps(progress)}
    metadata["sha256"] = checkpoint._digest(tensors, metadata)
    save_file(tensors, path, metadata=metadata)


def forged(path, change):
    """Change tensors, groups and progress of a state in place; it is as whole as before."""
    state = checkpoint.read_training_state(path)
    tensors, groups, progress = dict(state.tensors), state.param_groups, state.progress
    progress = change(tensors, groups, progress) or progress
    write_state(path, tensors, groups, progress)


def adam():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(IMAGES).sum().backward()
    optimizer.step()
    return model, optimizer


def put(name, value):
    def change(tensors, groups, progress):
        tensors[name] = value(tensors[name]) if callable(value) else value

    return change


def drop(name):
    return lambda tensors, groups, progress: tensors.pop(name).numel() and None


def setting(name, value):
    return lambda tensors, groups, progress: groups[0].update({name: value})


FORGED_STATES = {
    "int8 weights": (put("model.5.weight", lambda t: t.to(torch.int8)), "'5.weight'.*int8"),
    "NaN weights": (put("model.0.bias", lambda t: t * torch.nan), "'0.bias'.*finite"),
    "int8 slots": (put("optimizer.0.exp_avg", lambda t: t.to(torch.int8)), "0.exp_avg'.*int8"),
    "a slot's shape": (put("optimizer.3.exp_avg_sq", torch.zeros(7)), r"3.exp_avg_sq'.*\(7,\)"),
    "a slot's NaN": (put("optimizer.1.exp_avg", lambda t: t * torch.nan), "1.exp_avg'"),
    "a lacking slot": (drop("optimizer.2.exp_avg"), "'exp_avg' of parameter 2"),
    "a lacking step": (drop("optimizer.2.step"), "'step' of parameter 2"),
    "steps below 0": (put("optimizer.0.step", torch.tensor(-3.0)), "0.step'"),
    "endless steps": (put("optimizer.0.step", torch.tensor(torch.inf)), "0.step'"),
    "many steps": (put("optimizer.0.step", torch.ones(4)), "0.step'"),
    "a parameter that is not there": (put("optimizer.99.step", torch.ones(())), "parameter 99"),
    "a slot without a number": (put("optimizer.x.step", torch.ones(())), "'optimizer.x.step'"),
    "a huge number": (put(f"optimizer.{10**20}.step", torch.ones(())), "'optimizer.10"),
    "a stranger": (put("rng", torch.ones(())), "'rng'"),
    "a rate as text": (setting("lr", "fast"), "lr 'fast'"),
    "a rate below 0": (setting("lr", -0.1), "lr -0.1"),
    "an infinite rate": (setting("lr", float("inf")), "lr inf"),
    "a rate that is none": (setting("lr", None), "lr None"),
    "three betas": (setting("betas", [0.9, 0.99, 0.9]), "betas"),
    "betas as text": (setting("betas", "ab"), "betas"),
    "a switch as text": (setting("amsgrad", "no"), "amsgrad 'no'"),
    "a huge setting": (setting("eps", 10**400), "param_groups"),
    "parameters of nobody": (setting("params", [0, 1, 2, 3, 4, 5, 6, 700]), "8 parameters"),
    "the same parameters": (setting("params", [0] * 8), "8 parameters"),
    "no parameters": (lambda t, groups, p: groups[0].pop("params") and None, "param_groups"),
    "two groups": (lambda t, groups, p: groups.append(groups[0]), "2 groups"),
    "no groups": (lambda t, groups, p: groups.clear(), "param_groups"),
    "groups of text": (lambda t, groups, p: groups.__setitem__(0, "all"), "param_groups"),
}


@pytest.mark.parametrize("how", FORGED_STATES)
def test_a_forged_state_is_refused_by_name_and_nothing_changes(how, tmp_path):
    change, named = FORGED_STATES[how]
    path = tmp_path / "state.safetensors"
    save_training_state(path, *adam(), {"epoch": 1})
    forged(path, change)
    model, optimizer = adam()
    model.requires_grad_(False)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    with pytest.raises(ValueError, match=rf"state\.safetensors.*{named}.*delete it"):
        load_training_state(path, model, optimizer)
    torch.testing.assert_close((model.state_dict(), optimizer.state_dict()), before)


def test_a_state_that_lacks_a_setting_of_a_later_torch_takes_the_optimizers(tmp_path):
    path = tmp_path / "state.safetensors"
    save_training_state(path, *adam(), {"epoch": 1})
    forged(path, lambda t, groups, p: groups[0].pop("decoupled_weight_decay") and None)
    model, optimizer = adam()
    load_training_state(path, model, optimizer)
    optimizer.step()
    assert optimizer.param_groups[0]["decoupled_weight_decay"]


def test_states_of_generators_come_through(tmp_path):
    path, generator = tmp_path / "state.safetensors", torch.Generator().manual_seed(3)
    progress = {"pcg": 2**127 + 1, "torch": generator.get_state().tolist(), "least": float("-inf")}
    save_training_state(path, *adam(), progress)
    assert load_training_state(path, *adam()) == progress


@pytest.mark.parametrize("epoch", [-5, 3, 10**9, 1.5, 1.0, "1", None, True, [1]])
@pytest.mark.parametrize("use", ["search", "train"])
def test_an_epoch_that_cannot_be_is_refused(use, epoch, tmp_path):
    path = tmp_path / "state.safetensors"

    def go(loader, on_step=None):
        model = net()
        if use == "train":
            train(model, loader, CONFIG, checkpoint=path, on_step=on_step)
        else:
            config = recipe("paper", epochs=2)
            keywords = {"budget": BUDGET, "checkpoint": path, "on_step": on_step}
            search(SearchableCNN(model, config), loader, **keywords)

    go(LOADER)
    forged(path, lambda t, g, progress: {**progress, "epoch": epoch})
    content, steps = path.read_bytes(), []
    with pytest.raises(ValueError, match=r"state\.safetensors.*delete it"):
        go(LOADER, steps.append)
    assert not steps
    assert path.read_bytes() == content


FORGED_PROGRESS = {
    "no mapping": lambda p: [p],
    "no config": lambda p: {k: v for k, v in p.items() if k != "config"},
    "config as a list": lambda p: {**p, "config": [1]},
    "no epoch": lambda p: {k: v for k, v in p.items() if k != "epoch"},
}


@pytest.mark.parametrize("how", FORGED_PROGRESS)
def test_a_progress_of_another_form_is_refused(how, tmp_path):
    path = tmp_path / "state.safetensors"
    train(net(), LOADER, CONFIG, checkpoint=path)
    forged(path, lambda t, g, progress: FORGED_PROGRESS[how](progress))
    with pytest.raises(ValueError, match=r"state\.safetensors.*delete it"):
        train(net(), LOADER, CONFIG, checkpoint=path)


def replan(**changes):
    def change(progress):
        return {**progress, "plan": json.dumps({**json.loads(progress["plan"]), **changes})}

    return change


FORGED_SEARCHES = {
    "layers as numbers": lambda p: {**p, "layers": [1]},
    "a plan in another form": lambda p: {**p, "plan": "{}"},
    "a plan that is a list": lambda p: {**p, "plan": [1]},
    "another layer": replan(sizes={"9": 3}, soft_sizes={}, allowed={}),
    "a size that is not allowed": replan(sizes={"1": 99}),
    "another cost": replan(cost=1),
    "a plan beside the budget": replan(sizes={"1": 1}, cost=83),
    "a plan before the end": lambda p: {**p, "epoch": 0},
}


@pytest.mark.parametrize("how", FORGED_SEARCHES)
def test_a_plan_that_a_search_cannot_have_found_is_refused(how, tmp_path):
    path, config = tmp_path / "state.safetensors", recipe("bank", epochs=1, least_steps=0)
    keywords = {"budget": BUDGET, "config": config, "checkpoint": path}
    plan = search(net(), LOADER, **keywords)
    assert search(net(), LOADER, **keywords) == plan
    forged(path, lambda t, g, progress: FORGED_SEARCHES[how](progress))
    with pytest.raises(ValueError, match=r"state\.safetensors.*delete it"):
        search(net(), LOADER, **keywords)


@pytest.mark.parametrize(
    "count", [torch.tensor(-1), torch.tensor(2.5), torch.tensor([1, 2]), torch.tensor([])]
)
def test_a_count_of_draws_that_is_none_is_refused(count, tmp_path):
    path, config = tmp_path / "state.safetensors", recipe("bank", epochs=2, least_steps=0)
    keywords = {"budget": BUDGET, "config": config, "checkpoint": path}

    def stop(step):
        if step.epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(net(), LOADER, on_step=stop, **keywords)
    name = "model.draws._extra_state"
    assert name in checkpoint.read_training_state(path).tensors
    forged(path, put(name, count))
    with pytest.raises(ValueError, match=r"state\.safetensors.*delete it"):
        search(net(), LOADER, **keywords)


def test_what_is_written_is_what_is_read(tmp_path):
    """Nothing that a search or a training writes is refused, whatever its settings."""
    path: Path = tmp_path / "state.safetensors"
    for config in (CONFIG, TrainConfig(epochs=2, batch_size=4, optimizer="adam")):
        path.unlink(missing_ok=True)
        train(net(), LOADER, config, checkpoint=path)
        assert checkpoint.read_training_state(path).progress["config"] == asdict(config)
        train(net(), LOADER, config, checkpoint=path)
