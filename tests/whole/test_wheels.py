"""The packages as their users get them: built, checked, and installed into clean environments."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from tools.release.__main__ import check
from tools.release.build import copied
from tools.release.install import (
    fetch,
    install,
    output_of,
    programs_of,
    use,
)

pytestmark = pytest.mark.wheels

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory, commit) -> Path:
    """Give a repository of its own, with what git would hand to somebody who clones."""
    root = tmp_path_factory.mktemp("repository")
    copied(ROOT, root)
    for name in ("LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    commit(root)
    return root


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def outcome(repository, out) -> dict:
    steps = ("version", "build", "contents", "metadata")
    return check(repository, out, steps, Console(quiet=True))


@pytest.fixture(scope="module")
def distributions(outcome, out):
    return out / "dist"


@pytest.mark.skipif(shutil.which("hatch") is None, reason="hatch is not on the PATH")
def test_hatch_builds_all_packages_at_once(repository, distributions, tmp_path):
    shutil.copytree(repository, tmp_path / "clone")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "clone")
    # Not in the environment in which hatch runs this test.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("HATCH_")}
    build = ["hatch", "build", "--all"]
    subprocess.run(build, cwd=tmp_path / "clone", env=outside, check=True)
    built = {path.name for path in (tmp_path / "clone" / "dist").iterdir()} - {".gitignore"}
    assert built == {path.name for path in distributions.iterdir()}


def test_nothing_keeps_the_packages_from_being_released(outcome):
    names = {"effconv-core", "effconv-data", "effconv-kernels", "effconv-models"}
    assert set(outcome) == names
    found = [package["problems"] for package in outcome.values()]
    assert found == [{"version": [], "build": [], "contents": [], "metadata": []}] * 4


@pytest.mark.parametrize(
    ("target", "programs"),
    [
        (("effconv-models",), ["models"]),
        (("effconv-core", "effconv-models"), ["core", "core_and_models", "models"]),
    ],
    ids=" ".join,
)
def test_packages_install_and_work(
    target, programs, repository, distributions, place, torch, tmp_path
):
    assert [path.stem for path in programs_of(target)] == programs
    use(install(repository, place, torch, distributions, target, tmp_path), target, tmp_path)


@pytest.fixture(scope="module")
def kernels_alone(repository, distributions, place, torch, tmp_path_factory):
    """Install and use the wheel of the kernels alone, and give the environment's Python."""
    folder = tmp_path_factory.mktemp("kernels")
    python = install(repository, place, torch, distributions, ("effconv-kernels",), folder)
    use(python, ("effconv-kernels",), folder)
    return python


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_a_project_of_somebody_else_needs_the_wheel_of_the_kernels_alone(
    example, kernels_alone, tmp_path
):
    copy = shutil.copytree(example, tmp_path / example.name)
    pip = (kernels_alone, "-I", "-m", "pip")
    fetch(*pip, "install", "--quiet", f"{copy}[test]", cwd=tmp_path)
    listed = output_of(*pip, "freeze", cwd=tmp_path).splitlines()
    ours = [line for line in listed if line.startswith("effconv")]
    assert [line.partition("=")[0].partition(" ")[0] for line in ours] == ["effconv-kernels"]
    told = output_of(kernels_alone, "-I", "-m", "pytest", "-q", cwd=copy)
    assert " passed" in told
    assert "skipped" not in told
