"""Commands that documents name have code, here or in the commit that is named with them."""

import pytest

from tools.docs.commands import commands_without_code
from tools.release.versions import git


@pytest.fixture
def root(tmp_path, commit):
    """A repository whose first commit has a command that the second lacks."""
    settings = tmp_path / "pyproject.toml"
    scripts = '[tool.hatch.envs.bench.scripts]\nfft = "python -m fft"\n'
    settings.write_text(scripts + 'old = "python -m old"\n')
    commit(tmp_path)
    settings.write_text(scripts)
    commit(tmp_path)
    return tmp_path


def test_a_command_is_of_the_tree_or_of_the_commit_behind_it(root):
    first, second = git(root, "log", "--format=%h", "--abbrev=7").split()[::-1]
    document = root / "a.md"
    document.write_text(
        f"`hatch run bench:fft --rounds 2`, `hatch run search:NAME`, `hatch run bench:old` of\n"
        f"commit `{first}`; `hatch run bench:old`, `hatch run bench:fft-page`,\n"
        f"`hatch run bench:old` of commit `{second}`, `hatch run bench:older` of commit `{first}`, "
        "`hatch run bench:oldest` of commit `0123456`\n"
    )
    assert commands_without_code(document, root) == [
        *("bench:old", "bench:fft-page", "bench:old", "bench:older", "bench:oldest"),
    ]


def test_a_commit_that_a_shallow_clone_lacks_is_believed(root, tmp_path_factory):
    first = git(root, "log", "--format=%h", "--abbrev=7").split()[-1]
    clone = tmp_path_factory.mktemp("clone")
    git(clone, "clone", "--quiet", "--depth", "1", f"file://{root}", ".")
    document = clone / "a.md"
    document.write_text(f"`hatch run bench:old` of commit `{first}`, `hatch run bench:old`")
    assert commands_without_code(document, clone) == ["bench:old"]
