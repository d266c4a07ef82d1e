"""The public names are those that are listed, and the list changes with the changelog alone."""

import json
import re
from pathlib import Path

import effconv_models
import pytest

from tools.release import public_api

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("package", public_api.PACKAGES)
def test_the_public_names_are_those_listed(package):
    listed = json.loads((ROOT / public_api.LIST).read_text(encoding="utf-8"))
    assert public_api.public(package) == listed[package], (
        "run `hatch run release:api`, which asks for the changelog entry"
    )


@pytest.mark.parametrize("package", public_api.PACKAGES)
def test_the_newest_section_of_the_changelog_is_the_version(package):
    folder = ROOT / "packages" / package.replace("_", "-")
    version, text = public_api.newest_section((folder / "CHANGELOG.md").read_text("utf-8"))
    source = (folder / "src" / package / "__init__.py").read_text("utf-8")
    assert version == re.search(r'__version__ = "(.*)"', source)[1]
    assert text.strip()


def test_a_change_that_the_changelog_does_not_tell_is_refused():
    version = effconv_models.__version__
    newest = f"## [{version}] - today\n\n- `gone` went, `fresh` came.\n\n"
    changelog = f"# Changelog\n\n{newest}## [0.0.1]\n\n- `odd`\n"

    def untold(before, now, text=changelog):
        return public_api.untold("effconv_models", before, now, text)

    assert untold({"gone": "()"}, {"fresh": "(a)"}) == []
    (refused,) = untold({"odd": "()"}, {"odd": "(a, b=1)"})
    assert "effconv_models.odd differs from the list" in refused
    (refused,) = untold({}, {"fresh": "()"}, "## [0.0.1]\n\n- `fresh`\n")
    assert f"effconv_models is {version} and its changelog begins with 0.0.1" in refused
    assert untold({"same": "()"}, {"same": "()"}, "## [0.0.1]\n\n- \n") == []


def test_arguments_are_told_without_their_kinds():
    def function(a: int, *, b: str = "x") -> float: ...

    assert public_api.arguments_of(function) == "(a, *, b='x')"
    assert public_api.arguments_of(3) == ""
