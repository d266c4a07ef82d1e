"""What a package tells of itself."""

import pytest

from tests.tools.release.tiny_package import metadata_of, replace

pytestmark = pytest.mark.wheels


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
