"""Metadata of a package: licence, types, Pythons, description."""

import re
import subprocess
import sys
from pathlib import Path

from packaging.metadata import ExceptionGroup, Metadata
from packaging.version import Version

from tools.release.build import Built, members
from tools.release.versions import project_of, version_of

LICENCE = "Apache-2.0"
PYTHON = re.compile(r"Programming Language :: Python :: (3\.\d+)$")


def pythons(folder: Path) -> list[str]:
    """Return the Pythons that a package names, from the oldest to the newest."""
    found = (PYTHON.match(classifier) for classifier in project_of(folder)["classifiers"])
    return sorted((match[1] for match in found if match), key=Version)


def metadata_problems(root: Path, folder: Path, built: Built) -> list[str]:
    """Return what the metadata of a package lack.

    Args:
        root: the repository, which has the text of the licence.
        folder: of the package in it.
        built: its wheel and source archive.
    """
    files, problems = members(built.wheel), []
    (name,) = (each for each in files if each.endswith(".dist-info/METADATA"))
    try:
        found = Metadata.from_email(files[name], validate=True)
    except ExceptionGroup as group:
        return [f"{folder.name}: {error}" for error in group.exceptions]

    def wants(holds: bool, sentence: str) -> None:
        if not holds:
            problems.append(f"{folder.name}: {sentence}")

    wants(
        (found.name, found.version) == (folder.name, version_of(folder)),
        f"its metadata are of {found.name} {found.version}; build it again",
    )
    wants(
        found.license_expression == LICENCE and found.license_files == ["LICENSE"],
        f"the licence is {found.license_expression} in {found.license_files}; set `license` to "
        f"{LICENCE} and `license-files` to LICENSE",
    )
    text = files.get(name.replace("METADATA", "licenses/LICENSE"))
    wants(
        text == (root / "LICENSE").read_bytes(),
        "its LICENSE differs from the repository's; copy that one",
    )
    wants(
        "Typing :: Typed" in (found.classifiers or []),
        "it does not tell that it has types; add the classifier `Typing :: Typed`",
    )
    named = pythons(folder)
    oldest = str(found.requires_python).removeprefix(">=")
    minors = [int(version.split(".")[1]) for version in named]
    wants(
        bool(named) and named[0] == oldest and minors == [*range(minors[0], minors[-1] + 1)],
        f"it needs Python {found.requires_python} and names {', '.join(named) or 'none'}; let the "
        "classifiers name each one from the oldest that it needs",
    )
    readme = (folder / "README.md").read_text(encoding="utf-8")
    wants(
        bool(found.description)
        and found.description.strip() == readme.strip()
        and found.description_content_type == "text/markdown",
        "its description is not its README; set `readme` to README.md",
    )
    wants(bool(found.summary), "it has no summary; set `description`")
    wants(bool(found.project_urls), "it names no address; add one to `project.urls`")
    wants(
        all(requirement.url is None for requirement in found.requires_dist or []),
        "it needs something from an address, which an index refuses; name a version",
    )
    told = members(built.sdist).get("PKG-INFO")
    wants(told == files[name], "its source archive tells something else than its wheel")
    return problems + twine_problems(built)


def twine_problems(built: Built) -> list[str]:
    """Return the findings of `twine check`, mainly whether an index can show the description."""
    process = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode == 0:
        return []
    told = " ".join((process.stdout + process.stderr).split())
    return [f"`twine check` refuses {built.wheel.name} or {built.sdist.name}: {told}"]
