"""Which commands a document names, and whether there is code for them, here or in a commit."""

import re
from functools import lru_cache
from pathlib import Path

from tools.release.versions import git, tomllib

COMMAND = re.compile(
    r"`hatch\s+run\s+([a-z0-9-]+:[a-z0-9-]+)(?![\w-])[^`]*`"
    r"(?:\s+of\s+commit\s+`([0-9a-f]{7,40})`)?"
)


def scripts_of(text: str) -> set[str]:
    """Return the scripts that a `pyproject.toml` defines for hatch, as `environment:name`."""
    environments = tomllib.loads(text)["tool"]["hatch"]["envs"]
    return {
        f"{environment}:{name}"
        for environment, settings in environments.items()
        for name in settings.get("scripts", {})
    }


@lru_cache
def _scripts_at(root: Path, commit: str) -> set[str] | None:
    """Return the scripts of a commit; None where a shallow clone lacks it."""
    try:
        return scripts_of(git(root, "show", f"{commit}:pyproject.toml"))
    except ValueError:
        shallow = git(root, "rev-parse", "--is-shallow-repository").strip() == "true"
        return None if shallow else set()


def commands_without_code(document: Path, root: Path = Path()) -> list[str]:
    """Return the commands of a document that nobody can give.

    A command in prose is one of `pyproject.toml`, or one of the commit that is named right behind
    it, as in "`hatch run bench:gradient` of commit `160e63d`". A commit that a shallow clone lacks
    is believed.

    Args:
        document: the file.
        root: the repository.

    Raises:
        ValueError: if `root` is in no git repository and a commit is named.
    """
    now = scripts_of((root / "pyproject.toml").read_text(encoding="utf-8"))
    missing = []
    for command, commit in COMMAND.findall(document.read_text(encoding="utf-8")):
        known = _scripts_at(root.resolve(), commit) if commit else now
        if known is not None and command not in known:
            missing.append(command)
    return missing
