"""`effconv check`: the CNN of a plan is the network searched, or one sentence says why not."""

import pytest
from effconv_core.cli import main

SOURCE = """
import torch
import torch.nn.functional as F
from torch import nn

class Causal(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
    def forward(self, x):
        return self.conv(F.pad(self.stem(x), (self.conv.kernel_size[0] - 1, 0)))

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 1, 1)
    def forward(self, x, scale):
        return self.conv(self.stem(x)) * scale

def by_place():
    return torch.ones(2, 3, 8, 8), torch.ones(2, 1, 1, 1)

def by_name():
    return {"scale": torch.tensor(2.0), "x": torch.ones(2, 3, 8, 8)}

def none():
    raise KeyError("no inputs")

def plain():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 1))
"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    (tmp_path / "networks_of_check.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(name, *words):
        status = main(["check", f"networks_of_check:{name}", *words])
        return status, *capsys.readouterr()

    return run


def test_a_network_that_holds_is_told_layer_by_layer(check):
    status, out, err = check("plain", "--shape", "3", "16", "16")
    assert (status, err) == (0, "")
    assert "first convolution" in out
    assert "has one tap" in out
    assert "in 1 layer" in out


def test_a_network_that_does_not_is_one_sentence_with_the_line(check):
    status, out, err = check("Causal", "--shape", "3", "16", "16")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "kernel_size of 'conv'" in err
    assert "networks_of_check.py:11" in err


@pytest.mark.parametrize("shape", [("3",), ("4", "8", "8"), ("0", "8", "8"), ("3", "1", "1")])
def test_a_shape_that_does_not_fit_is_one_sentence(check, shape):
    status, out, err = check("plain", "--shape", *shape)
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_layers_can_be_chosen(check):
    status, out, _ = check("plain", "--shape", "3", "16", "16", "--searched", "0", "1")
    assert status == 0
    assert "in 2 layer" in out


@pytest.mark.parametrize("inputs", ["by_place", "by_name"])
def test_a_network_of_several_inputs_is_run_on_what_a_function_gives(check, inputs):
    status, out, _ = check("Pair", "--inputs", f"networks_of_check:{inputs}")
    assert status == 0
    assert "in 1 layer" in out


@pytest.mark.parametrize("inputs", ["none", "absent", "plain", ""])
def test_inputs_that_do_not_fit_are_one_sentence(check, inputs):
    status, out, err = check("Pair", "--inputs", inputs and f"networks_of_check:{inputs}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "inputs" in err


def test_a_wrong_number_of_channels_names_the_option(check):
    status, _, err = check("plain", "--shape", "1", "16", "16")
    assert status == 2
    assert "--shape" in err
