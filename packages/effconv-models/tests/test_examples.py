import doctest
import re
from pathlib import Path

import effconv_models
import pytest
import torch
from effconv_models import kernel_sizes, layers, registry
from effconv_models.flexconv import conv, convert
from effconv_models.multi_resolution import analysis, layer, network
from torch import nn

MODULES = [
    conv,
    kernel_sizes,
    layers,
    analysis,
    network,
    layer,
    convert,
    registry,
]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_docstring_examples(module):
    names = {name: getattr(effconv_models, name) for name in effconv_models.__all__}
    results = doctest.testmod(module, extraglobs={"torch": torch, "nn": nn, **names})
    assert results.attempted
    assert not results.failed


def readme_examples(mark: str) -> list[str]:
    """Give the README's examples that hold a mark, in their order."""
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    examples = [
        e for e in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if mark in e.lower()
    ]
    assert examples
    return examples


def test_readme_example():
    (example,) = readme_examples("block_kernel_sizes")
    names = {}
    exec(example, names)
    assert names["logits"].shape == (8, 10)
    assert names["sizes"]["layer1.0.conv1"] == 5
    assert names["sizes"]["layer1.0.conv2"] == 3
    assert effconv_models.block_kernel_sizes(names["again"]) == names["sizes"]


def test_readme_examples_of_flexconv():
    names = {}
    for example in readme_examples("flex"):
        exec(example, names)
    assert names["logits"].shape == (8, 10)
    assert set(names["sizes"].values()) == {5}
    assert names["kept"] == {"0": "is the model's first convolution"}
    assert not any(isinstance(m, effconv_models.FlexConv) for m in names["plain"].modules())
    torch.testing.assert_close(
        names["plain"].eval()(names["images"]),
        names["flexible"].eval()(names["images"]),
        rtol=1e-3,
        atol=1e-4,
    )
    assert names["outputs"].shape == (8, 16, 500)


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
