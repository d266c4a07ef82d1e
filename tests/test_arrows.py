"""Which package may import which; a hatch workspace installs all, so only this notices."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "effconv_kernels": set(),
    "effconv_core": {"effconv_kernels"},
    "effconv_models": set(),
    "effconv_data": set(),
}
DEPENDENCIES = {
    "effconv_kernels": {"torch", "triton"},
    # The last five are of the extra `cli`; a test of effconv-core does without them.
    "effconv_core": {
        *("torch", "numpy", "safetensors", "msgspec", "filelock", "effconv_kernels"),
        *("tyro", "rich", "matplotlib", "jinja2", "PIL"),
    },
    "effconv_models": {"torch"},
    "effconv_data": {"torch", "numpy", "webdataset", "PIL", "tyro", "rich"},
}
STANDARD = sys.stdlib_module_names | {"typing_extensions"}  # for type checkers alone; torch has it


def imported(source: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source} imports relatively"
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_stands_below_it(package):
    sources = sorted((ROOT / "packages" / package.replace("_", "-") / "src").rglob("*.py"))
    assert sources
    for source in sources:
        ours = {name for name in imported(source) if name.startswith("effconv_")} - {package}
        assert ours <= MAY_IMPORT[package], source


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_it_declares(package):
    for source in (ROOT / "packages" / package.replace("_", "-") / "src").rglob("*.py"):
        foreign = imported(source) - STANDARD - {package}
        assert foreign <= DEPENDENCIES[package], source
    declared = (ROOT / "packages" / package.replace("_", "-") / "pyproject.toml").read_text()
    for name in DEPENDENCIES[package]:
        name = {"PIL": "pillow"}.get(name, name).replace("_", "-")
        assert f'"{name}>=' in declared
