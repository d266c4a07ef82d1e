"""What `release:check` finds, in a package that is right but for one thing."""

import io
import shutil

import pytest
from rich.console import Console

from tests.tools.release.tiny_package import EPOCH, built, root_of
from tools.release.__main__ import check, show_outcome
from tools.release.build import build_problems, members
from tools.release.contents import content_problems
from tools.release.metadata import metadata_problems
from tools.release.versions import git, version_problems

pytestmark = pytest.mark.wheels


def test_a_package_that_is_right_has_no_problem(tiny, tmp_path):
    (tiny / "src/effconv_tiny/__pycache__").mkdir()
    (tiny / "src/effconv_tiny/__pycache__/rest.pyc").touch()
    assert version_problems(tiny) == []
    wheel, sdist = made = built(tiny)
    assert build_problems(root_of(tiny), tiny, made, EPOCH) == []
    assert content_problems(tiny, made) == []
    assert metadata_problems(root_of(tiny), tiny, made) == []
    information = "effconv_tiny-0.1.0.dist-info"
    assert sorted(members(wheel)) == [
        *("effconv_tiny-0.1.0.dist-info/METADATA", f"{information}/RECORD", f"{information}/WHEEL"),
        f"{information}/entry_points.txt",
        *(f"{information}/licenses/LICENSE", "effconv_tiny/__init__.py", "effconv_tiny/py.typed"),
    ]
    assert sorted(members(sdist)) == [
        *(".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"),
        *("src/effconv_tiny/__init__.py", "src/effconv_tiny/py.typed", "tests/test_tiny.py"),
    ]


def test_without_tags_the_check_says_that_no_version_was_compared(tiny, tmp_path):
    def told():
        console = Console(file=io.StringIO(), width=200)
        packages = check(root_of(tiny), tmp_path / "out", ("version",), console)
        wrong = show_outcome({"packages": packages, "installs": []}, console)
        return wrong, console.file.getvalue()

    wrong, said = told()
    assert wrong == 0
    assert "effconv-tiny-v*" in said
    assert "no release to compare with" in said
    git(root_of(tiny), "tag", "effconv-tiny-v0.1.0")
    shutil.rmtree(tmp_path / "out")
    wrong, said = told()
    assert wrong == 0
    assert "effconv-tiny-v*" not in said
    assert "ok" in said
