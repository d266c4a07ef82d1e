"""What the documents show runs."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("module", ["loading.augment", "loading.resident", "synthetic"])
def test_docstring_examples(module):
    result = doctest.testmod(import_module(f"effconv_data.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_readme_examples(small_set, monkeypatch):
    made = small_set("cifar10", shards={"train": [130], "test": [10]}, shape=(32, 32, 3))
    monkeypatch.setenv("EFFCONV_DATA", str(made.write().parent))
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, str(README), "exec"), {})
