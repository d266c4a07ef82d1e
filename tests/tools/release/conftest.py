"""A package that can be released."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tiny(tmp_path, commit):
    """Give the folder of a package that can be released, in a repository of its own."""
    root = tmp_path / "repository"
    folder = root / "packages" / "effconv-tiny"
    settings = (ROOT / "packages" / "effconv-models" / "pyproject.toml").read_text("utf-8")
    settings = settings.replace("effconv-models", "effconv-tiny")
    settings = settings.replace("effconv_models", "effconv_tiny").replace('  "torch>=2.6",\n', "")
    licence = (ROOT / "LICENSE").read_text("utf-8")
    for name, text in {
        root / "LICENSE": licence,
        root / ".gitignore": "__pycache__/\n",
        folder / "LICENSE": licence,
        folder / "README.md": "# effconv-tiny\n\nA small package.\n",
        folder / "CHANGELOG.md": "# Changelog\n\n## [0.1.0] - 2026-11-21\n\n- All of it.\n",
        folder / "pyproject.toml": settings,
        folder / "src/effconv_tiny/__init__.py": '"""Small."""\n\n__version__ = "0.1.0"\n',
        folder / "src/effconv_tiny/py.typed": "",
        folder / "tests/test_tiny.py": "def test_nothing(): ...\n",
    }.items():
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(text, encoding="utf-8")
    commit(root)
    return folder
