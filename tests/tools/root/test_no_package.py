"""The root of the repository cannot be built or installed, and says what can."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.root import no_package

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "hook", [name for name in vars(no_package) if name.startswith(("build_", "get_requires_"))]
)
def test_every_hook_ends_with_the_command_that_builds(hook):
    with pytest.raises(SystemExit, match="hatch build --all"):
        getattr(no_package, hook)("wheels", config_settings=None)


def test_all_hooks_that_pip_and_build_call_first_are_there():
    kinds = ("wheel", "sdist", "editable")
    names = {f"build_{kind}" for kind in kinds} | {f"get_requires_for_build_{k}" for k in kinds}
    assert names <= vars(no_package).keys()


@pytest.mark.slow
def test_pip_passes_the_sentence_on(tmp_path):
    words = ["pip", "wheel", "--no-deps", "--no-index", "--wheel-dir", str(tmp_path), str(ROOT)]
    ended = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert "hatch build --all" in ended.stdout + ended.stderr
    assert list(tmp_path.iterdir()) == []
