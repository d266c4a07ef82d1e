"""`hatch run release:check`: check that the packages can be released as they are.

It checks their versions, their builds, and that each installs and works on its own. The checked
distributions are written to `runs/release/dist`, for the release workflow to upload, and the
result to `runs/release/check.json`.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import tyro
from effconv_core.io.atomic import remove_file, write_text
from effconv_core.io.console import PlainConsole
from effconv_core.runs.environment import environment
from rich.console import Console
from rich.table import Table

from tools.release.build import build, build_problems, packages_in, sha256
from tools.release.contents import content_problems
from tools.release.install import (
    TARGETS,
    FailedError,
    Place,
    install,
    install_torch,
    places,
    use,
)
from tools.release.metadata import metadata_problems
from tools.release.versions import git, released, version_of, version_problems

ROOT = Path(__file__).parents[2]
OUT = ROOT / "runs" / "release"
MADE = re.compile(r"check\.json|dist/effconv_[\w.+-]+(\.whl|\.tar\.gz)")
"""Files that a check leaves there."""
Step = Literal["version", "build", "contents", "metadata", "install"]


@dataclass(frozen=True)
class ReleaseOptions:
    """Check that the packages can be released.

    version: packages changed since their last tag have a higher version and a changelog.
    build: wheels and source archives are reproducible elsewhere, and wheels from the archives.
    contents: they hold what git tracks of a package, licence and metadata, and nothing else.
    metadata: licence, types, Pythons and description are present; `twine check`.
    install: each installs by itself with pip and works, on the oldest and newest Python and torch.
    """

    only: tuple[Step, ...] = ("version", "build", "contents", "metadata", "install")
    """The steps to take."""


def check(root: Path, out: Path, only: tuple[str, ...], console: Console) -> dict[str, Any]:
    """Build all packages, run the steps that install nothing; return the outcome of each.

    Args:
        root: the repository.
        out: folder whose `dist` gets the distributions.
        only: the steps.
        console: where progress is shown.
    """
    epoch = git(root, "log", "-1", "--format=%ct").strip()
    outcomes: dict[str, Any] = {}
    for folder in packages_in(root / "packages"):
        built = build(folder, out / "dist", epoch)
        steps: dict[str, Callable[[], list[str]]] = {
            "version": lambda folder=folder: version_problems(folder),
            "build": lambda folder=folder, built=built: build_problems(root, folder, built, epoch),
            "contents": lambda folder=folder, built=built: content_problems(folder, built),
            "metadata": lambda folder=folder, built=built: metadata_problems(root, folder, built),
        }
        console.print(f"{folder.name} {version_of(folder)} is built")
        outcomes[folder.name] = {
            "version": str(version_of(folder)),
            "releases": list(map(str, released(folder))),
            "sha256": {path.name: sha256(path) for path in built},
            "problems": {name: step() for name, step in steps.items() if name in only},
        }
    return outcomes


def installs(root: Path, distributions: Path, console: Console) -> Iterator[dict[str, Any]]:
    """Try each target on each supported Python and torch; yield the outcomes."""
    for place in places(root):
        rows = [
            {
                "install": " ".join(target),
                "python": place.version,
                "torch": place.torch.removeprefix("torch=="),
            }
            for target in TARGETS
        ]
        if place.python is None:
            for row in rows:
                yield row | {"outcome": f"not tried: no Python {place.version} here"}
            continue
        with tempfile.TemporaryDirectory() as name:
            try:
                console.print(f"{place.torch} on Python {place.version}")
                torch = install_torch(place, Path(name))
            except FailedError as error:
                yield from (row | {"outcome": "failed", "said": str(error)} for row in rows)
                continue
            for row, target in zip(rows, TARGETS, strict=True):
                console.print(f"pip install {row['install']}")
                yield row | attempt(root, place, torch, distributions, target)


def attempt(
    root: Path, place: Place, torch: Path, distributions: Path, target: tuple[str, ...]
) -> dict[str, Any]:
    """Try one target in one place; return the outcome."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            versions = use(
                install(root, place, torch, distributions, target, folder), target, folder
            )
        except FailedError as error:
            return {"outcome": "failed", "said": str(error)}
    return {"outcome": "works", "torch": versions["torch"], "versions": versions}


def show_outcome(result: dict[str, Any], console: Console) -> int:
    """Print the outcome; return the number of problems."""
    steps = Table("package", *next(iter(result["packages"].values()))["problems"])
    problems = []
    for name, package in result["packages"].items():
        found = package["problems"]
        passed = {"version": "ok" if package["releases"] else "no release to compare with"}
        cells = [f"{len(found[s])} wrong" if found[s] else passed.get(s, "ok") for s in found]
        steps.add_row(f"{name} {package['version']}", *cells)
        problems += [sentence for sentences in found.values() for sentence in sentences]
    console.print(steps)
    if result["installs"]:
        table = Table("pip install", "Python", "torch", "outcome")
        for row in result["installs"]:
            table.add_row(row["install"], row["python"], row["torch"], row["outcome"])
            if row["outcome"] == "failed":
                place = f"Python {row['python']} and torch {row['torch']}"
                problems.append(f"pip install {row['install']} on {place}: {row['said']}")
        console.print(table)
    for name, package in result["packages"].items():
        if "version" in package["problems"] and not package["releases"]:
            console.print(
                f"- {name} has no tag {name}-v*, so its version was compared with no release: if "
                "there is one, run `git fetch --tags` and check again",
                soft_wrap=True,
            )
    for sentence in problems:
        console.print(f"- {sentence}", markup=False, highlight=False, soft_wrap=True)
    return len(problems)


def begin(out: Path) -> None:
    """Make the folder of a check, without what an earlier one left.

    Raises:
        ValueError: if it holds anything else, which is not deleted.
    """
    paths = sorted(path for path in out.rglob("*") if not path.is_dir() or path.is_symlink())
    for path in paths:
        if path.is_symlink() or not MADE.fullmatch(path.relative_to(out).as_posix()):
            raise ValueError(f"{path} is nothing that a check has made; move it elsewhere")
    for path in paths:
        remove_file(path)
    (out / "dist").mkdir(parents=True, exist_ok=True)


def main() -> int:
    """Run the command line; the status is 1 if something is wrong."""
    options, console = tyro.cli(ReleaseOptions, prog="release:check"), PlainConsole()
    begin(OUT)
    versions = {name: version(name) for name in ("hatchling", "twine")}
    result: dict[str, Any] = {"environment": environment("cpu") | versions, "installs": []}
    result["packages"] = check(ROOT, OUT, options.only, console)
    write_text(OUT / "check.json", json.dumps(result, indent=1) + "\n")
    if "install" in options.only:
        for row in installs(ROOT, OUT / "dist", console):
            result["installs"].append(row)
            write_text(OUT / "check.json", json.dumps(result, indent=1) + "\n")
    return 1 if show_outcome(result, console) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"release:check: {error}")
