"""What the documents show runs."""

import doctest
import re
import sys
from pathlib import Path

import effconv_kernels
import pytest
import torch


@pytest.mark.parametrize("module", ["gru", "assemble"])
def test_docstring_examples(module):
    names = {name: getattr(effconv_kernels, name) for name in effconv_kernels.__all__}
    result = doctest.testmod(
        sys.modules[f"effconv_kernels.{module}"], extraglobs={"torch": torch, **names}
    )
    assert result.attempted > 0
    assert result.failed == 0


def test_readme_examples(capsys):
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        exec(example, {})
        promised = re.findall(r"print\(.*  # (.*)", example)
        assert capsys.readouterr().out.splitlines() == promised
        assert promised
