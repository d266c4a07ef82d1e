"""What the documents show runs."""

import doctest
import re
import sys
from dataclasses import replace
from pathlib import Path

import effconv_core
import pytest
import torch
from torch import nn


@pytest.mark.parametrize(
    "name", ["SearchableCNN", "score", "searched_layers", "Budget", "Macs", "Latency"]
)
def test_docstring_examples(name):
    names = {name: getattr(effconv_core, name) for name in effconv_core.__all__}
    module = sys.modules[names[name].__module__]
    result = doctest.testmod(module, extraglobs={"torch": torch, "nn": nn, **names})
    assert result.attempted > 0
    assert result.failed == 0


def test_readme_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipes, short = effconv_core.RECIPES, {"least_steps": 0, "race_steps": 8, "finalists": 4}
    monkeypatch.setitem(recipes, "bank", replace(recipes["bank"], **short))
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len(blocks) == 9
    names = {}
    exec(blocks[0], names)
    assert abs(names["plan"].cost / 15_000 - 1) <= 0.02
    built = effconv_core.apply_plan(names["model"], effconv_core.SizePlan.load("plan.json"))
    assert sum(p.numel() for p in built.parameters()) == names["plan"].cost
    for block in blocks[1:]:
        exec(block, names)
        # What a comment says that an example prints is what it prints.
        for call, printed in re.findall(r"^print\((.*)\)  # (\[.*\])$", block, re.MULTILINE):
            assert eval(call, names) == eval(printed)
