"""`hatch run release:api`: list each package's public names, if the changelogs cover changes.

The list is `docs/public-api.json`. A test fails if it does not match the packages, and this
command rewrites it only if the newest section of the package's changelog has the package's
version and names each added, removed or changed name.
"""

import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, get_origin

from effconv_core.io.atomic import write_text

LIST = Path("docs/public-api.json")
PACKAGES = ("effconv_core", "effconv_data", "effconv_kernels", "effconv_models")


def arguments_of(value: Any) -> str:
    """Return the arguments of a function or class, without annotations; empty if not callable."""
    if get_origin(value) is not None:  # `Callable[...]`, which Python 3.13 gives arguments
        return ""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def public(package: str) -> dict[str, str]:
    """Return each public name of a package with its arguments."""
    module = importlib.import_module(package)
    return {name: arguments_of(getattr(module, name)) for name in sorted(module.__all__)}


def newest_section(changelog: str) -> tuple[str, str]:
    """Return version and text of a changelog's first section."""
    version, text = re.search(
        r"^## \[([^\]]+)\][^\n]*\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE
    ).groups()
    return version, text


def untold(package: str, before: dict[str, str], now: dict[str, str], changelog: str) -> list[str]:
    """Return a sentence for each change of a package's names that its changelog lacks."""
    changed = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
    version, text = newest_section(changelog)
    own = importlib.import_module(package).__version__
    if changed and version != own:
        return [f"{package} is {own} and its changelog begins with {version}; add a section"]
    return [
        f"{package}.{name} differs from the list, and section {version} of the changelog does not "
        "name it; tell of it there"
        for name in changed
        if not re.search(rf"\b{re.escape(name)}\b", text)
    ]


def main() -> int:
    """Write the list; the exit status is 1 if a changelog lacks something."""
    listed = json.loads(LIST.read_text(encoding="utf-8")) if LIST.exists() else {}
    problems, fresh = [], {}
    for package in PACKAGES:
        fresh[package] = public(package)
        changelog = Path("packages") / package.replace("_", "-") / "CHANGELOG.md"
        if package in listed:
            text = changelog.read_text(encoding="utf-8")
            problems += untold(package, listed[package], fresh[package], text)
    print("\n".join(problems))
    if not problems:
        write_text(LIST, json.dumps(fresh, indent=1) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
