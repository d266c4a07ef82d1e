"""Whether a package comes out as the same bytes each time that it is built."""

import pytest

from tests.tools.release.tiny_package import EPOCH, built, root_of
from tools.release.build import build_problems

pytestmark = pytest.mark.wheels

HOOK = """
import time
from pathlib import Path
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

class Stamp(BuildHookInterface):
    def initialize(self, version, build_data):
        Path(self.root, "src/effconv_tiny/stamp.py").write_text(f"TIME = {time.time_ns()}\\n")
"""


def test_a_build_that_depends_on_the_time_is_told(tiny, tmp_path, commit):
    (tiny / "hatch_build.py").write_text(HOOK)
    with (tiny / "pyproject.toml").open("a") as file:
        file.write("\n[tool.hatch.build.hooks.custom]\n")
    commit(root_of(tiny))
    found = build_problems(root_of(tiny), tiny, built(tiny), EPOCH)
    assert len(found) == 3
    assert all("as other bytes when it is built" in problem for problem in found)
    assert all("effconv_tiny/stamp.py" in problem for problem in found)


def test_what_cannot_be_built_is_told(tiny, tmp_path):
    (tiny / "README.md").unlink()
    with pytest.raises(ValueError, match=r"effconv-tiny cannot be built: .*README"):
        built(tiny)
