"""What a wheel and a source archive hold."""

import pytest

from tests.tools.release.tiny_package import built, root_of
from tools.release.contents import content_problems

pytestmark = pytest.mark.wheels


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
