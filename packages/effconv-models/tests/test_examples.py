import doctest
import re
from pathlib import Path

import effconv_models
import pytest
import torch
from effconv_models import kernel_sizes, layers, registry


@pytest.mark.parametrize("module", [kernel_sizes, layers, registry], ids=lambda m: m.__name__)
def test_docstring_examples(module):
    names = {name: getattr(effconv_models, name) for name in effconv_models.__all__}
    results = doctest.testmod(module, extraglobs={"torch": torch, **names})
    assert results.attempted
    assert not results.failed


def test_readme_example():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(example, names)
    assert names["logits"].shape == (8, 10)
    assert names["sizes"]["layer1.0.conv1"] == 5
    assert names["sizes"]["layer1.0.conv2"] == 3
    assert effconv_models.block_kernel_sizes(names["again"]) == names["sizes"]
