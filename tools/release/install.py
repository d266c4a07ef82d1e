"""The packages as their users get them: by pip, into an empty environment, and used."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version

from tools.release.build import packages_in
from tools.release.metadata import pythons
from tools.release.versions import project_of

PROGRAMS = Path(__file__).parent / "programs"
TARGETS: dict[tuple[str, ...], set[str]] = {
    ("effconv-kernels",): {"effconv-kernels"},
    ("effconv-models",): {"effconv-models"},
    ("effconv-data",): {"effconv-data"},
    ("effconv-core",): {"effconv-core", "effconv-kernels"},
    ("effconv-core", "effconv-models"): {"effconv-core", "effconv-kernels", "effconv-models"},
}
"""Requirements of a user, and all packages of this project that must come with them."""


class Place(NamedTuple):
    """A Python and torch on which the packages are tried."""

    version: str
    """Python version, such as 3.10."""
    python: str | None
    """Path of its interpreter; None if this machine has none."""
    torch: str
    """Requirement of torch, as passed to pip."""


class FailedError(Exception):
    """A command that failed."""


def programs_of(target: Sequence[str]) -> list[Path]:
    """Return the programs that use only the installed packages."""
    given = {name.removeprefix("effconv-") for name in target}
    return [path for path in sorted(PROGRAMS.glob("*.py")) if {*path.stem.split("_and_")} <= given]


def places(root: Path) -> list[Place]:
    """Return the oldest Python with the oldest torch, and the newest with the constraints' torch.

    If this machine lacks a Python, the running one is used, in addition to the one not tried.
    """
    folders = packages_in(root / "packages")
    named = sorted({version for folder in folders for version in pythons(folder)}, key=Version)
    needed = (Requirement(text) for f in folders for text in project_of(f)["dependencies"])
    lower = {s.version for n in needed if n.name == "torch" for s in n.specifier}
    oldest = f"torch=={min(lower, key=Version)}.*"
    pinned = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (newest,) = (line for line in pinned if line.startswith("torch=="))
    own, found = f"{sys.version_info[0]}.{sys.version_info[1]}", []
    for version, torch in ((named[0], oldest), (named[-1], newest)):
        python = sys.executable if version == own else _found(version)
        found.append(Place(version, python, torch))
        if python is None:
            found.append(Place(own, sys.executable, torch))
    return found


def _found(version: str) -> str | None:
    """Return a Python that runs: a version manager may list some that do not."""
    path = shutil.which(f"python{version}")
    runs = path and subprocess.run([path, "-c", ""], capture_output=True, check=False)
    return path if runs and runs.returncode == 0 else None


def output_of(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command; return its output.

    Raises:
        FailedError: if its status is not 0, with the end of its output.
    """
    process = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        said = (process.stdout + process.stderr).strip().splitlines()
        raise FailedError("\n".join(said[-12:]) or f"status {process.returncode}")
    return process.stdout


def fetch(*arguments: object, cwd: Path, env: dict[str, str] | None = None) -> None:
    """Run a command that needs the network, which may fail: up to three times.

    Raises:
        FailedError: if it fails each time, with the end of its output.
    """
    for _ in range(2):
        with suppress(FailedError):
            output_of(*arguments, cwd=cwd, env=env)
            return
        time.sleep(10)
    output_of(*arguments, cwd=cwd, env=env)


def foreign(root: Path, names: Sequence[str]) -> list[str]:
    """Return the third-party requirements of packages, including indirect ones."""
    found: dict[str, None] = {}
    for name in names:
        for text in project_of(root / "packages" / name)["dependencies"]:
            needed = Requirement(text).name
            if (root / "packages" / needed).is_dir():
                found |= dict.fromkeys(foreign(root, [needed]))
            else:
                found[text] = None
    return list(found)


# Environments are soon deleted, so modules that are never imported need not be compiled.
PIP = ("-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"


def environment(place: Place, folder: Path, torch: Path | None = None) -> tuple[Path, Path]:
    """Create an empty environment; return its Python and its site-packages folder.

    Args:
        place: the Python.
        folder: where it is created.
        torch: the site-packages of an environment with torch, added to the path; None adds nothing.
    """
    output_of(place.python, "-m", "venv", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    packages = Path(output_of(python, "-I", "-c", PACKAGES, cwd=folder).strip())
    if torch is not None:
        (packages / "torch.pth").write_text(f"{torch}\n", encoding="utf-8")
    return python, packages


def _usual() -> dict[str, str]:
    """Return the environment variables for pip, without the workspace's constraints."""
    return {k: v for k, v in os.environ.items() if k not in ("PIP_CONSTRAINT", "PIP_USER")}


def install_torch(place: Place, folder: Path) -> Path:
    """Create an environment with torch only; return its site-packages folder.

    Raises:
        FailedError: if pip refuses, with its reason.
    """
    python, packages = environment(place, folder / "torch")
    fetch(python, *PIP, place.torch, cwd=folder, env=_usual())
    return packages


def install(
    root: Path, place: Place, torch: Path, distributions: Path, target: Sequence[str], folder: Path
) -> Path:
    """Make an environment with some packages of a folder, and return its Python.

    What is not ours comes from where pip usually gets it. Ours then comes only from the
    folder, so that nothing else of that name can be meant.

    Args:
        root: the repository.
        place: the Python.
        torch: where it was installed, once for all since it is large; added to the path.
        distributions: the folder of what was built, from which pip chooses.
        target: the packages.
        folder: where the environment is created, as `venv`.

    Raises:
        FailedError: if pip refuses, with its reason.
    """
    alone = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    alone["PIP_CONFIG_FILE"] = os.devnull
    python, _ = environment(place, folder / "venv", torch)
    if needed := foreign(root, target):
        fetch(python, *PIP, *needed, cwd=folder, env=_usual())
    output_of(
        python, *PIP, "--no-index", "--find-links", distributions, *target, cwd=folder, env=alone
    )
    output_of(python, "-I", "-m", "pip", "check", cwd=folder)
    return python


def use(python: Path, target: Sequence[str], folder: Path) -> dict[str, str]:
    """Check what was installed with the packages in an environment, and use them there.

    Returns:
        The version of each installed package.

    Raises:
        FailedError: if something else of ours is there, or a program fails.
    """
    listed = json.loads(
        output_of(python, "-I", "-m", "pip", "list", "--format", "json", cwd=folder)
    )
    versions = {entry["name"]: entry["version"] for entry in listed}
    ours = {name for name in versions if name.startswith("effconv")}
    if ours != TARGETS[tuple(target)]:
        raise FailedError(f"{' '.join(target)} brought {', '.join(sorted(ours))}")
    for program in programs_of(target):
        output_of(python, "-I", program, cwd=folder)
    return versions
