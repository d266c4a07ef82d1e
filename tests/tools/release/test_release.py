"""What `release:check` finds, in a package that is right but for one thing."""

import io
import re
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tools.release import install
from tools.release.__main__ import check, show_outcome
from tools.release.build import build, build_problems, members
from tools.release.contents import content_problems
from tools.release.install import FailedError, Place, use
from tools.release.metadata import metadata_problems
from tools.release.versions import git, version_problems

pytestmark = pytest.mark.wheels

ROOT = Path(__file__).parents[3]
EPOCH = "1700000000"
HOOK = """
import time
from pathlib import Path
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

class Stamp(BuildHookInterface):
    def initialize(self, version, build_data):
        Path(self.root, "src/effconv_tiny/stamp.py").write_text(f"TIME = {time.time_ns()}\\n")
"""


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


def replace(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def raise_version(folder, old, new):
    replace(folder / "src/effconv_tiny/__init__.py", old, new)


def root_of(folder):
    return folder.parents[1]


def built(folder):
    return build(folder, root_of(folder).parent / "dist", EPOCH)


def metadata_of(folder):
    return metadata_problems(root_of(folder), folder, built(folder))


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


def test_a_release_that_nothing_has_changed_since_may_be_checked_again(tiny, commit):
    git(root_of(tiny), "tag", "effconv-tiny-v0.1.0")
    replace(tiny / "README.md", "small", "little")
    (tiny / "tests/test_more.py").touch()
    commit(root_of(tiny))
    assert version_problems(tiny) == []


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize(
    "name", ["src/effconv_tiny/__init__.py", "src/effconv_tiny/more.py", "pyproject.toml"]
)
def test_a_package_that_changed_needs_a_new_version_and_a_section(name, committed, tiny, commit):
    git(root_of(tiny), "tag", "effconv-tiny-v0.1.0")
    git(root_of(tiny), "tag", "effconv-other-v9.0.0")
    with (tiny / name).open("a") as file:
        file.write("# more\n")
    if committed:
        commit(root_of(tiny))
    (problem,) = version_problems(tiny)
    assert problem.startswith(f"effconv-tiny is 0.1.0, which is released, but {name} changed since")
    raise_version(tiny, "0.1.0", "0.10.0")
    (problem,) = version_problems(tiny)
    assert "has no section 0.10.0 in its CHANGELOG.md; add `## [0.10.0] - 2" in problem
    replace(tiny / "CHANGELOG.md", "## [0.1.0]", "## [0.10.0] - soon\n\n- More.\n\n## [0.1.0]")
    assert "no day; write `## [0.10.0] - 2" in version_problems(tiny)[0]
    replace(tiny / "CHANGELOG.md", "soon\n\n- More.", "2026-11-22")
    assert "is empty" in version_problems(tiny)[0]
    replace(tiny / "CHANGELOG.md", "2026-11-22", "2026-11-22\n\n- More.")
    assert version_problems(tiny) == []
    commit(root_of(tiny))
    git(root_of(tiny), "tag", "effconv-tiny-v0.10.0")
    raise_version(tiny, "0.10.0", "0.9.0")  # less, though not in the order of the alphabet
    assert "is 0.9.0 and 0.10.0 is released" in version_problems(tiny)[0]


def test_a_tag_on_the_wrong_commit_is_told(tiny):
    git(root_of(tiny), "tag", "effconv-tiny-v0.2.0")
    (problem,) = version_problems(tiny)
    assert problem.startswith("tag effconv-tiny-v0.2.0 is on a commit of effconv-tiny 0.1.0")


def test_a_bound_names_a_version_that_there_is(tiny, commit):
    other = tiny.parent / "effconv-other"
    for path in [*tiny.rglob("*.*")]:
        copy = other / str(path.relative_to(tiny)).replace("tiny", "other")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text("utf-8").replace("tiny", "other"), "utf-8")
    settings = other / "pyproject.toml"
    replace(settings, "dependencies = [", 'dependencies = ["effconv-tiny>=0.1"')
    commit(root_of(tiny))
    assert version_problems(other) == []
    git(root_of(tiny), "tag", "effconv-tiny-v0.1.0")
    raise_version(tiny, "0.1.0", "0.2.0")
    assert version_problems(other) == []
    for wrong in ("effconv-tiny>=0.1.5", "effconv-tiny", "effconv-tiny<0.2"):
        replace(settings, "effconv-tiny>=0.1", wrong)
        (problem,) = version_problems(other)
        assert f"needs `{wrong}`, whose least version is none of those of effconv-tiny" in problem
        assert "0.1.0, 0.2.0; write `effconv-tiny>=0.2.0`" in problem
        replace(settings, wrong, "effconv-tiny>=0.1")


def test_a_shallow_clone_and_no_clone_are_refused(tiny, tmp_path):
    raise_version(tiny, "Small", "Smaller")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{root_of(tiny)}", str(shallow))
    with pytest.raises(ValueError, match="is shallow.*run `git fetch --unshallow --tags`"):
        version_problems(shallow / "packages" / "effconv-tiny")
    (root_of(tiny) / ".git").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="releases are checked in a clone"):
        version_problems(tiny)


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


@pytest.mark.parametrize(
    ("stray", "tracked", "archives"),
    [
        ("src/effconv_tiny/notes.txt", True, 1),
        ("src/effconv_tiny/notes.py", False, 2),
        ("src/effconv_tiny/test_own.py", True, 1),
        ("src/effconv_tiny/tests/own.py", True, 1),
        ("plan.json", True, 1),
        ("tests/left.py", False, 1),
    ],
)
def test_a_stray_file_is_told(stray, tracked, archives, tiny, tmp_path, commit):
    (tiny / stray).parent.mkdir(exist_ok=True)
    (tiny / stray).touch()
    if tracked:
        commit(root_of(tiny))
    found = content_problems(tiny, built(tiny))
    assert len(found) == archives
    name = stray.removeprefix("src/")
    assert all(f"{name}, which is not part of a release" in problem for problem in found)


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("src/effconv_tiny/py.typed", "py3-none-any.whl lacks effconv_tiny/py.typed"),
        ("CHANGELOG.md", "tar.gz lacks CHANGELOG.md"),
        ("tests/test_tiny.py", "tar.gz has no tests"),
    ],
)
def test_a_missing_file_is_told(gone, told, tiny, tmp_path, commit):
    (tiny / gone).unlink()
    commit(root_of(tiny))
    (problem,) = content_problems(tiny, built(tiny))
    assert told in problem


def test_a_module_that_the_wheel_leaves_out_is_told(tiny, tmp_path, commit):
    (tiny / "src/effconv_tiny/more.py").touch()
    with (tiny / "pyproject.toml").open("a") as file:
        file.write('exclude = ["more.py"]\n')
    commit(root_of(tiny))
    (problem,) = content_problems(tiny, built(tiny))
    assert "py3-none-any.whl lacks effconv_tiny/more.py" in problem


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("pyproject.toml", '"Apache-2.0"', '"MIT"', "the licence is MIT in ['LICENSE']"),
        ("pyproject.toml", '["LICENSE"]', "[]", "the licence is Apache-2.0 in None"),
        ("LICENSE", "Apache", "Other", "its LICENSE differs from the repository's"),
        ("pyproject.toml", '  "Typing :: Typed",\n', "", "does not tell that it has types"),
        ("pyproject.toml", ">=3.10", ">=3.9", "needs Python >=3.9 and names 3.10, 3.11, 3.12"),
        ("pyproject.toml", '"Programming Language :: Python :: 3.11",', "", "names 3.10, 3.12"),
        ("pyproject.toml", 'readme = "README.md"', "", "its description is not its README"),
        ("pyproject.toml", "[project.urls]", "[tool.none]", "it names no address"),
        ("pyproject.toml", "Typing :: Typed", "Typing :: Odd", "cannot be built"),
    ],
)
def test_metadata_that_lack_something_are_told(name, old, new, told, tiny, tmp_path):
    replace(tiny / name, old, new)
    try:
        found = metadata_of(tiny)
    except ValueError as error:
        found = [str(error)]
    assert any(told in problem for problem in found), found


def test_twine_refuses_a_description_that_no_index_can_show(tiny, tmp_path):
    (tiny / "README.rst").write_text("Title\n=\n\n.. unknown::\n")
    replace(tiny / "pyproject.toml", "README.md", "README.rst")
    found = metadata_of(tiny)
    assert any("`twine check` refuses effconv_tiny-0.1.0" in problem for problem in found)


def test_a_python_that_is_missing_is_named_and_another_stands_in(tmp_path, monkeypatch):
    for name, status in (("python3.10", 127), ("python3.13", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "version_info", (3, 11))
    pinned = re.search("^torch==.*", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0]
    assert install.places(ROOT) == [
        Place("3.10", None, "torch==2.6.*"),
        Place("3.11", sys.executable, "torch==2.6.*"),
        Place("3.13", str(tmp_path / "python3.13"), pinned),
    ]


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_what_comes_from_the_network_is_asked_for_three_times(failures, tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\n"
        "tries = Path('tries')\n"
        "tries.write_text(tries.read_text() + 'x' if tries.exists() else 'x')\n"
        f"raise SystemExit('broken off' if len(tries.read_text()) <= {failures} else 0)\n"
    )
    monkeypatch.setattr(install.time, "sleep", lambda seconds: None)
    if failures == 3:
        with pytest.raises(FailedError, match="broken off"):
            install.fetch(sys.executable, program, cwd=tmp_path)
    else:
        install.fetch(sys.executable, program, cwd=tmp_path)
    assert len((tmp_path / "tries").read_text()) == min(failures + 1, 3)


def test_what_is_installed_is_used_and_what_fails_is_told(tiny, tmp_path, monkeypatch):
    programs, folder = tmp_path / "programs", tmp_path / "folder"
    programs.mkdir()
    folder.mkdir()
    target = ("effconv-tiny",)
    monkeypatch.setattr(install, "PROGRAMS", programs)
    monkeypatch.setattr(install, "TARGETS", {target: {"effconv-tiny"}})
    here = Place("its own", sys.executable, "torch")
    distributions = built(tiny).wheel.parent
    no_torch = tmp_path / "no torch"
    python = install.install(root_of(tiny), here, no_torch, distributions, target, folder)

    def attempt(program):
        (programs / "tiny.py").write_text(program)
        return use(python, target, folder)

    used = "import effconv_tiny\nassert effconv_tiny.__file__.count('folder/venv')\n"
    assert attempt(used)["effconv-tiny"] == "0.1.0"
    with pytest.raises(FailedError, match="ModuleNotFoundError: No module named 'torch'"):
        attempt("import torch")
    monkeypatch.setitem(install.TARGETS, target, set())
    with pytest.raises(FailedError, match="effconv-tiny brought effconv-tiny"):
        attempt(used)


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
