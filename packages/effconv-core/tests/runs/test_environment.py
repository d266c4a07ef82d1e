"""The commit that a run names, and what makes its code another."""

import os
import subprocess

import pytest
import torch
from effconv_core.runs import environment

WHO = ("-c", "user.name=a", "-c", "user.email=a@b.c")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone that the module seems to lie in, and the name of its commit."""
    # Within a hook of git these name another clone, and a user's settings may ask for signatures.
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    package = tmp_path / "src"
    package.mkdir()
    code, settings, results = package / "run_files.py", tmp_path / "a.toml", tmp_path / "out.jsonl"
    for file in (code, settings, results):
        file.write_text("1\n")

    def git(*words):
        words = ["git", *WHO, *words]
        return subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    monkeypatch.setattr(environment, "__file__", str(code))
    return tmp_path, git("rev-parse", "--short=12", "HEAD").stdout.strip()


def commit():
    return environment.environment("cpu")["commit"]


def test_results_that_a_command_writes_do_not_make_other_code(clone):
    folder, head = clone
    assert commit() == head
    (folder / "out.jsonl").write_text("2\n")
    (folder / "new.py").write_text("2\n")  # what git does not know of is nobody's code yet
    assert commit() == head


@pytest.mark.parametrize("changed", ["src/run_files.py", "a.toml"])
@pytest.mark.parametrize("staged", [False, True])
def test_changed_code_is_told(clone, changed, staged):
    folder, head = clone
    (folder / changed).write_text("2\n")
    if staged:
        subprocess.run(["git", "add", changed], cwd=folder, check=True)
    assert commit() == f"{head}-dirty"


def test_installed_packages_have_no_commit(clone, monkeypatch):
    folder, _ = clone
    installed = folder / "src" / "ignored.py"
    installed.write_text("1\n")
    monkeypatch.setattr(environment, "__file__", str(installed))
    assert commit() == "none, the packages are installed"


def test_device_and_versions_are_text():
    found = environment.environment("cpu")
    assert found["torch"] == torch.__version__
    assert found["device"].startswith("cpu (")
    assert "ranks" not in found
    assert all(isinstance(value, str) for value in found.values())


def test_a_gpu_is_told_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert "GPU of cuda:1" in environment.environment("cuda:1")["device"]


def test_without_git_the_commit_is_not_known(monkeypatch):
    def no_git(*words, **options):
        raise FileNotFoundError(words)

    monkeypatch.setattr(environment.subprocess, "run", no_git)
    assert environment.environment("cpu")["commit"]
