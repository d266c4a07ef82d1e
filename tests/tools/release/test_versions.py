"""Whether what changed has a higher version, and a section that tells of it."""

import pytest

from tests.tools.release.tiny_package import raise_version, replace, root_of
from tools.release.versions import git, version_problems

pytestmark = pytest.mark.wheels


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
    with pytest.raises(ValueError, match="git fetch --unshallow --tags"):
        version_problems(shallow / "packages" / "effconv-tiny")
    (root_of(tiny) / ".git").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match="clone"):
        version_problems(tiny)
