"""Packages are installed into empty environments and used there."""

import re
import sys
from pathlib import Path

import pytest

from tests.tools.release.tiny_package import built, root_of
from tools.release import install
from tools.release.install import FailedError, Place, use

pytestmark = pytest.mark.wheels

ROOT = Path(__file__).parents[3]


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
