"""Versions, tags and changelogs: changes since a release need a higher version.

A release of a package is the tag `NAME-vVERSION`, such as `effconv-core-v0.3.0`.
"""

import datetime
import re
import subprocess
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where hatchling depends on it
    import tomli as tomllib

LOWER = (">=", "==", "~=")  # operators that name the least version


def git(folder: Path, *arguments: str) -> str:
    """Return git's output in a folder.

    Raises:
        ValueError: if it refuses, with its reason.
    """
    process = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise ValueError(
            f"`git {' '.join(arguments)}` failed in {folder}: {process.stderr.strip()}; releases "
            "are checked in a clone of the repository"
        )
    return process.stdout


def project_of(folder: Path) -> dict[str, Any]:
    """Read the `project` table of a package."""
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def module_of(folder: Path) -> str:
    """Name the module of a package."""
    return folder.name.replace("-", "_")


def _version_in(source: str) -> Version:
    return Version(re.search(r'^__version__ = "(.*)"$', source, re.MULTILINE)[1])


def version_of(folder: Path) -> Version:
    """Read a package's version without importing it."""
    return _version_in((folder / "src" / module_of(folder) / "__init__.py").read_text("utf-8"))


def released(folder: Path) -> list[Version]:
    """Return the tagged versions of a package in the history of HEAD, in ascending order.

    Raises:
        ValueError: in a shallow clone, which may lack tags and their commits.
    """
    if git(folder, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise ValueError(
            f"the clone that holds {folder} is shallow, so releases may be missing from it; run "
            "`git fetch --unshallow --tags`"
        )
    tags = git(folder, "tag", "--list", f"{folder.name}-v*", "--merged", "HEAD").split()
    return sorted(Version(tag.removeprefix(f"{folder.name}-v")) for tag in tags)


def version_problems(folder: Path) -> list[str]:
    """Return the problems of the version of the package in a folder of a git repository.

    Raises:
        ValueError: if this is not a git repository, or a shallow one.
    """
    return bump_problems(folder) + changelog_problems(folder) + bound_problems(folder)


def bump_problems(folder: Path) -> list[str]:
    """Return a problem if a package has changed since its newest release but not its version."""
    name, version, releases = folder.name, version_of(folder), released(folder)
    if not releases:
        return []
    last = releases[-1]
    tag = f"{name}-v{last}"
    tagged = _version_in(git(folder, "show", f"{tag}:./src/{module_of(folder)}/__init__.py"))
    if tagged != last:
        return [f"tag {tag} is on a commit of {name} {tagged}; delete it and tag the right one"]
    if version < last:
        return [f"{name} is {version} and {last} is released; give it a higher __version__"]
    parts = ("src", "pyproject.toml")
    changed = git(folder, "diff", "--name-only", "--relative", tag, "--", *parts).splitlines()
    changed += git(folder, "ls-files", "--others", "--exclude-standard", "--", *parts).splitlines()
    if changed and version == last:
        more = f" and {len(changed) - 1} more" if changed[1:] else ""
        return [
            f"{name} is {version}, which is released, but {changed[0]}{more} changed since; raise "
            "__version__ and add a section to CHANGELOG.md"
        ]
    return []


def changelog_problems(folder: Path) -> list[str]:
    """Return what the changelog lacks: a section of this version, with its date and some text."""
    version = version_of(folder)
    section = re.search(
        rf"^## \[{re.escape(str(version))}\](?: - (\S+))?\s*?\n(.*?)(?=^## |\Z)",
        (folder / "CHANGELOG.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    today = f"## [{version}] - {datetime.datetime.now(datetime.timezone.utc).date()}"
    if section is None:
        return [f"{folder.name} has no section {version} in its CHANGELOG.md; add `{today}`"]
    day, text = section.groups()
    try:
        datetime.date.fromisoformat(day or "")
    except ValueError:
        return [
            f"section {version} in the CHANGELOG.md of {folder.name} has no day; write `{today}`"
        ]
    if not text.strip():
        return [
            f"section {version} in the CHANGELOG.md of {folder.name} is empty; tell what changed"
        ]
    return []


def bound_problems(folder: Path) -> list[str]:
    """Return the requirements of a package on versions of its neighbours that do not exist."""
    project, problems = project_of(folder), []
    extras = project.get("optional-dependencies", {}).values()
    for text in [*project.get("dependencies", []), *(text for extra in extras for text in extra)]:
        needed = Requirement(text)
        neighbour = folder.parent / needed.name
        if not neighbour.is_dir():
            continue
        known = sorted({*released(neighbour), version_of(neighbour)})
        lower = [Version(s.version) for s in needed.specifier if s.operator in LOWER]
        if not lower or lower[0] not in known:
            problems.append(
                f"{folder.name} needs `{text}`, whose least version is none of those of "
                f"{needed.name}, {', '.join(map(str, known))}; write `{needed.name}>={known[-1]}`"
            )
    return problems
