"""The network of a run, and the names of its classes."""

import json

import pytest
import torch
from effconv_core.cli.found.network import Found, found_in, scores_of
from effconv_core.io.read_json import conform
from effconv_core.io.schemas import Inputs
from torch import nn

INPUTS = {"shape": (1, 2, 2), "num_classes": 3, "classes": ["ash", "bee"]}


def found(cnn=None):
    return Found(cnn or nn.Flatten(), conform(INPUTS, Inputs, what="it"), "d")


def test_a_class_without_a_name_is_its_number():
    assert [found().class_name(label) for label in range(3)] == ["ash", "bee", "2"]


def test_scores_are_in_float32_and_without_gradients():
    cnn = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).to(torch.bfloat16)
    images = torch.ones(2, 1, 2, 2, dtype=torch.bfloat16)
    scores = scores_of(found(cnn), images)
    assert (scores.dtype, scores.requires_grad) == (torch.float32, False)
    assert torch.equal(scores, cnn(images).float())


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "config.json"),
        ({"config.json": {"settings": {"model": "m", "data": "d"}}}, "cnn.safetensors"),
        ({"config.json": {"settings": {"model": "m"}}, "cnn.safetensors": {}}, "config.json"),
    ],
)
def test_a_folder_without_a_trained_network_is_refused_with_the_file(files, named, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=named):
        found_in(tmp_path, "cpu")
