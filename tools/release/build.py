"""Wheels and source archives of a package, and a check that builds are reproducible."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from tools.release.versions import git, module_of, version_of

ELSEWHERE = {"PYTHONHASHSEED": "17", "TZ": "Asia/Kathmandu", "LC_ALL": "C"}


class Built(NamedTuple):
    """The distributions of a package."""

    wheel: Path
    sdist: Path


def copied(root: Path, to: Path) -> Path:
    """Copy the packages without what git ignores; return their folder.

    Untracked files are copied too, since a build would include them.
    """
    names = git(root, "ls-files", "-co", "--exclude-standard", "--", "packages", ".gitignore")
    for name in names.splitlines():
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, to / name)
    return to / "packages"


def packages_in(folder: Path) -> list[Path]:
    """Return the folders of all packages."""
    return sorted(path.parent for path in folder.glob("*/pyproject.toml"))


def build(folder: Path, out: Path, epoch: str, *, elsewhere: bool = False) -> Built:
    """Build wheel and source archive of the package in a folder.

    Args:
        folder: the package's folder.
        out: folder for both.
        epoch: their timestamp, in seconds since 1970.
        elsewhere: use another time zone, language, hash seed and umask.

    Raises:
        ValueError: if it cannot be built, with the reason.
    """
    process = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(out)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch, **(ELSEWHERE if elsewhere else {})},
        umask=0o077 if elsewhere else -1,
    )
    if process.returncode:
        reason = process.stderr.strip().splitlines()[-1]
        raise ValueError(f"{folder.name} cannot be built: {reason}; mend what it names")
    stem = f"{module_of(folder)}-{version_of(folder)}"
    return Built(out / f"{stem}-py3-none-any.whl", out / f"{stem}.tar.gz")


def members(archive: Path) -> dict[str, bytes]:
    """Read all files of a wheel or a source archive, which loses its one folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as sdist:
        files = [member for member in sdist.getmembers() if not member.isdir()]
        return {
            member.name.partition("/")[2]: (
                sdist.extractfile(member).read() if member.isfile() else b""
            )
            for member in files
        }


def sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(one: Path, other: Path) -> str:
    """Return the differences between two archives; empty if they are byte-identical."""
    if sha256(one) == sha256(other):
        return ""
    before, after = members(one), members(other)
    changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    return ", ".join(changed) or "order, times or modes of its files"


def build_problems(root: Path, folder: Path, built: Built, epoch: str) -> list[str]:
    """Return the differences when a package is built elsewhere, or from its sdist.

    Args:
        root: the repository.
        folder: the folder of the built package, named as in the repository.
        built: its distributions.
        epoch: the timestamp of that build.
    """
    problems = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        packages = copied(root, work / "some" / "where else")
        again = build(packages / folder.name, work / "again", epoch, elsewhere=True)
        shutil.unpack_archive(built.sdist, work / "unpacked")
        (unpacked,) = (work / "unpacked").iterdir()
        unpacked = unpacked.rename(work / "unpacked" / folder.name)
        of_sdist = build(unpacked, work / "of sdist", epoch)
        for what, one, other in (
            ("when it is built in another folder", built.wheel, again.wheel),
            ("when it is built in another folder", built.sdist, again.sdist),
            ("when it is built of the source archive", built.wheel, of_sdist.wheel),
        ):
            if found := differences(one, other):
                problems.append(
                    f"{one.name} comes out as other bytes {what}: {found}; let nothing in the "
                    "build depend on time, place or chance"
                )
    return problems
