"""Check the files of a wheel and a source archive against the expected ones."""

import re
from collections.abc import Iterable
from pathlib import Path

from tools.release.build import Built, members
from tools.release.versions import git, module_of, project_of, version_of

KINDS = re.compile(r"\.py$|/py\.typed$|/templates/[\w-]+\.(html|css)$")
TESTS = re.compile(r"(^|/)(tests?|benchmarks|examples)/|(^|/)(test_\w+|conftest)\.py$")
METADATA = ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")
FILES = ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml")
FOLDERS = ("src", "tests", "examples", "benchmarks")
WRITTEN = ("PKG-INFO", ".gitignore")
"""Files that hatchling adds to a source archive; the second makes its builds ignore the same."""


def content_problems(folder: Path, built: Built) -> list[str]:
    """Return the missing and unexpected files of a package's distributions.

    Args:
        folder: the package in the repository: all files below it that git tracks are expected.
        built: its wheel and source archive.
    """
    tracked = git(folder, "ls-files").splitlines()
    return _wheel_problems(folder, built.wheel, tracked) + _sdist_problems(built.sdist, tracked)


def _wheel_problems(folder: Path, wheel: Path, tracked: list[str]) -> list[str]:
    information = f"{module_of(folder)}-{version_of(folder)}.dist-info"
    wanted = {name.removeprefix("src/") for name in tracked if name.startswith("src/")}
    alien = {name for name in wanted if not KINDS.search(name) or TESTS.search(name)}
    wanted |= {f"{information}/{name}" for name in METADATA}
    if project_of(folder).keys() & {"scripts", "entry-points"}:
        wanted.add(f"{information}/entry_points.txt")
    wanted.add(f"{module_of(folder)}/py.typed")  # whether git tracks it or not
    return _differences(wheel, wanted - alien)


def _sdist_problems(sdist: Path, tracked: list[str]) -> list[str]:
    wanted = {name for name in tracked if name.startswith(tuple(f"{each}/" for each in FOLDERS))}
    problems = [
        f"{sdist.name} has no {folder}; it should be built of"
        for folder in FOLDERS[:2]
        if not any(name.startswith(f"{folder}/") for name in wanted)
    ]
    return problems + _differences(sdist, wanted | {*FILES, *WRITTEN})


def _differences(archive: Path, wanted: Iterable[str]) -> list[str]:
    held, wanted = set(members(archive)), set(wanted)
    return [
        *(f"{archive.name} lacks {name}; add it to the package" for name in sorted(wanted - held)),
        *(
            f"{archive.name} holds {name}, which is not part of a release; delete it, or commit it "
            "if it is source code"
            for name in sorted(held - wanted)
        ),
    ]
