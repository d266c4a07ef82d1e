"""Names of runs: what may become the name of a folder, and how one is made of other words."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from effconv_core.config import RENAMED

LONGEST = 200
"""Bytes of UTF-8; file systems take 255, and what is written beside a folder has a longer name."""
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])", re.IGNORECASE)
"""Names that Windows keeps for devices, with any suffix."""


def check_name(name: str, what: str = "--name") -> str:
    """Return a name of a run after a look at whether it is one.

    Args:
        name: becomes the name of a folder, within the folder of all runs and never elsewhere.
        what: says in errors where it is from.

    Raises:
        ValueError: if it is empty, `.`, `..`, a path, too long, begins with a dash or with a
            space, ends with a dot or a space, holds a control character or one of `<>:"|?*`, or is
            a device of Windows.
    """
    problem = _problem(name)
    if problem:
        raise ValueError(
            f"{what} is {ascii(name)[:100]}, which {problem}; pass a plain name, such as run-1"
        )
    return name


def _problem(name: str) -> str:
    if not name.strip():
        return "is empty"
    if not name.isprintable():
        return "holds a control character"
    if "/" in name or "\\" in name:
        return "is a path"
    if odd := set(name) & set('<>:"|?*'):
        return f"holds {min(odd)!r}, which Windows does not take"
    if name.startswith("-"):
        return "begins with a dash"
    if name in (".", ".."):
        return "is a folder that there is"
    if name != name.strip() or name.endswith("."):
        return "begins or ends with a space, or ends with a dot"
    if len(name.encode()) > LONGEST:
        return f"has more than {LONGEST} bytes"
    if RESERVED.fullmatch(name.partition(".")[0].strip()):
        return "Windows keeps for a device"
    return ""


def name_of(*words: object) -> str:
    """Return a name made of words such as those of data and model, joined by dashes.

    What is neither a letter, a digit, nor one of `_.-` becomes a dash. A name that would be too
    long is cut, and ends with a hash of the whole.

    Args:
        words: at least one of them not empty.
    """
    text = re.sub(r"[^\w.-]+", "-", "-".join(map(str, words))).lstrip("-").rstrip(".")
    if len(text.encode()) > LONGEST:
        kept = text.encode()[: LONGEST - 13].decode(errors="ignore")
        text = f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return f"run-{text}" if _problem(text) else text


def folder_of(runs: Path, recipe: str, name: Callable[[str], str]) -> Path:
    """Return the folder of a run whose name contains its recipe's.

    Args:
        runs: the folder of all runs.
        recipe: present name of the recipe.
        name: returns the name of the run from that of its recipe.

    Returns:
        The folder under the present name, unless only one under a former name exists.
    """
    names = [recipe, *(former for former, present in RENAMED.items() if present == recipe)]
    folders = [runs / name(word) for word in names]
    return next((folder for folder in folders if folder.exists()), folders[0])
