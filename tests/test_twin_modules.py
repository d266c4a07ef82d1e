"""effconv-data may import nothing of effconv-core, so some modules exist twice: they stay alike."""

import inspect
from pathlib import Path

import effconv_core.io.atomic
import effconv_data.io.atomic
import pytest

PACKAGES = Path(__file__).parent.parent / "packages"


@pytest.mark.parametrize("module", ["read_json", "terminal"])
def test_both_modules_have_the_same_text(module):
    texts = [
        (
            PACKAGES / f"effconv-{name}" / "src" / f"effconv_{name}" / "io" / f"{module}.py"
        ).read_text()
        for name in ("core", "data")
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["sync_folder"])
def test_both_functions_have_the_same_text(name):
    core, data = (
        inspect.getsource(getattr(module, name))
        for module in (effconv_core.io.atomic, effconv_data.io.atomic)
    )
    assert core == data
    assert effconv_core.io.atomic.PARTIAL == effconv_data.io.atomic.PARTIAL
