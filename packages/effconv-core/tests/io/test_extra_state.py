"""The state of a module: tensors, and values of JSON beside them."""

import pytest
import torch
from effconv_core import SizePlan, apply_plan, load, load_training_state, save, save_training_state
from effconv_core.io.extra_state import state_of
from torch import nn


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


class Kept(nn.Module):
    """A module with a buffer and a state of its own."""

    def __init__(self, extra, buffer=None):
        super().__init__()
        self.extra = extra
        self.register_buffer("values", torch.ones(2) if buffer is None else buffer)

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


@pytest.mark.parametrize(
    "extra",
    [
        *(None, 3, True, "text", 0.1, {}, []),
        [1, [2.5, None]],
        {"a": {"b": ["c", False]}},
        [float("inf"), -float("inf")],
        -(2**128),
    ],
)
def test_values_of_json_stand_beside_the_tensors(extra):
    tensors, others = state_of(nn.Sequential(nn.Linear(1, 1, bias=False), Kept(extra)))
    assert set(tensors) == {"0.weight", "1.values"}
    assert others == {"1._extra_state": extra}


@pytest.mark.parametrize(
    "extra",
    [
        (1, 2),
        {1: "a"},
        {"a": {"b": (1,)}},
        float("nan"),
        2**128 + 1,
        [10**400],
        [10**5000],
        "half of a character: \ud800",
        {"\udfff": 1},
        nested(32),
        nested(5000),
        b"bytes",
        {1, 2},
        type("Text", (str,), {})("a"),
        type("Names", (dict,), {})(a=1),
    ],
)
def test_what_would_not_come_back_is_refused_by_name(extra):
    with pytest.raises(TypeError, match=r"'1\._extra_state'"):
        state_of(nn.Sequential(nn.Identity(), Kept(extra)))


@pytest.mark.parametrize(
    ("buffer", "kind"),
    [
        (lambda: torch.ones(2, device="meta"), "meta"),
        (lambda: torch.eye(2).to_sparse(), "sparse"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantized"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize")
def test_tensors_without_plain_values_are_refused_by_name(buffer, kind):
    with pytest.raises(TypeError, match=rf"'values'.*{kind}"):
        state_of(Kept(None, buffer()))


def test_states_that_are_too_long_together_are_refused():
    long = "x" * (3 << 20)
    state_of(nn.Sequential(Kept(long), Kept(long)))
    with pytest.raises(ValueError, match=r"0\._extra_state"):
        state_of(nn.Sequential(Kept(long), Kept(long), Kept(long)))


@pytest.mark.parametrize("extra", [[float("inf")], 2**100, nested(31), {"é": -0.0}, ["x" * 10**6]])
def test_whatever_is_written_is_read_again(extra, tmp_path):
    def network(extra):
        return nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3), Kept(extra))

    plan = SizePlan({"1": 5})
    save(apply_plan(network(extra), plan), plan, tmp_path / "cnn.safetensors")
    assert load(network(None), tmp_path / "cnn.safetensors")[2].extra == extra
    written, read = network(extra), network(None)
    save_training_state(tmp_path / "state", written, torch.optim.SGD(written.parameters()), {})
    load_training_state(tmp_path / "state", read, torch.optim.SGD(read.parameters()))
    assert read[2].extra == extra


@pytest.mark.parametrize("value", [2**129, "\ud800", nested(33), ["x" * (9 << 20)]])
@pytest.mark.parametrize("place", ["progress", "settings of the optimizer"])
def test_what_could_not_be_read_again_is_not_written(value, place, tmp_path):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    save_training_state(tmp_path / "state", model, optimizer, {"steps": 3})
    progress = {"steps": value}
    if place != "progress":
        optimizer.param_groups[0]["name"], progress = value, {"steps": 4}
    with pytest.raises(ValueError, match="progress" if place == "progress" else "param_groups"):
        save_training_state(tmp_path / "state", model, optimizer, progress)
    other = nn.Linear(1, 1)
    kept = load_training_state(tmp_path / "state", other, torch.optim.SGD(other.parameters()))
    assert kept == {"steps": 3}


def test_an_entry_whose_name_is_no_text_is_refused():
    with pytest.raises(ValueError, match="half of a character"):
        state_of(nn.ModuleDict({"a\udce4": nn.Linear(1, 1)}))
