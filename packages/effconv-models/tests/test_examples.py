import doctest
import re
from pathlib import Path

import effconv_models
import pytest
import torch
from effconv_models import (
    kernel_sizes,
    layers,
    mixing,
    multi_resolution,
    multi_resolution_layer,
    registry,
)

MODULES = [kernel_sizes, layers, mixing, multi_resolution, multi_resolution_layer, registry]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_docstring_examples(module):
    names = {name: getattr(effconv_models, name) for name in effconv_models.__all__}
    results = doctest.testmod(module, extraglobs={"torch": torch, "nn": torch.nn, **names})
    assert results.attempted
    assert not results.failed


def test_readme_example():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example, *_ = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(example, names)
    assert names["logits"].shape == (8, 10)
    assert names["sizes"]["layer1.0.conv1"] == 5
    assert names["sizes"]["layer1.0.conv2"] == 3
    assert effconv_models.block_kernel_sizes(names["again"]) == names["sizes"]


def test_readme_example_of_resolutions():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n([^`]*multi_resolution10_16.*?)```", readme, re.DOTALL)
    names = {}
    exec(example, names)
    images = torch.zeros(2, 3, 32, 32)
    assert names["cnn"](images).shape == names["pruned"](images).shape == (2, 10)
    assert names["grid"].shape == (9, 4)
    # One step moved them from where they started.
    assert not torch.equal(names["grid"], torch.full((9, 4), 0.25))
    assert len(names["sizes"]) == 9
