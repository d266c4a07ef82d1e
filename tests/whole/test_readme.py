"""The root README's example runs."""

import re
from dataclasses import replace
from pathlib import Path

from effconv_core import RECIPES, SizePlan


def test_the_example_on_a_model_of_ones_own(tmp_path, monkeypatch):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(RECIPES, "bank", replace(RECIPES["bank"], least_steps=8, race_steps=1))
    names = {}
    exec(example, names)
    assert SizePlan.load("plan.json") == names["plan"]
    assert names["plan"].evidence.pairs > 1  # which needs five batches
    assert abs(names["plan"].cost / 14_700 - 1) <= 0.02
    assert sum(p.numel() for p in names["cnn"].parameters()) == names["plan"].cost
