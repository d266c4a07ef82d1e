"""Shared by the tests of releases."""

from pathlib import Path

import pytest

from tools.release.versions import git

WHO = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")


def _commit(root: Path) -> None:
    if not (root / ".git").exists():
        git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, *WHO, "-c", "commit.gpgsign=false", "commit", "--quiet", "--message", "change")


@pytest.fixture(scope="session")
def commit():
    """Give a function that commits all of a folder, which becomes a repository if it is none."""
    return _commit
