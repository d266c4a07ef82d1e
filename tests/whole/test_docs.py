"""The documentation runs: every block of Python, and every command line is one that exists."""

import contextlib
import functools
import importlib
import io
import re
import runpy
import shlex
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from effconv_core import RECIPES

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md"))
READMES = [
    Path("README.md"),
    *sorted(p.relative_to(ROOT) for p in ROOT.glob("packages/*/README.md")),
]
EXAMPLES = sorted(p.relative_to(ROOT) for p in ROOT.glob("examples/*/README.md"))


def blocks(page, *languages):
    found = re.findall(
        r"^```([\w-]*)\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return [text for language, text in found if language in languages]


# `test_walks.py` does these line by line, with the commands between their blocks.
WALKED = {Path("docs/tutorials/two-packages.md"), Path("docs/tutorials/research.md")}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] * (page in WALKED))
        for page in PAGES
        if blocks(page, "python")
    ],
    ids=str,
)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = replace(RECIPES["bank"], least_steps=8, race_steps=1)
    monkeypatch.setitem(RECIPES, "bank", short)
    names = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using padding='same' with even kernel lengths")
        for block in blocks(page, "python"):
            exec(compile(block, str(page), "exec"), names)


def commands(page):
    for block in blocks(page, "", "console"):
        for line in block.replace("\\\n", "").splitlines():
            if line.startswith(("hatch run ", "effconv ", "effconv-data ")):
                yield shlex.split(line, comments=True)


def scripts():
    """Give the workspace's scripts, `environment:name` to command line."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        environments = tomllib.load(file)["tool"]["hatch"]["envs"]
    return {
        f"{environment}:{name}": command
        for environment, settings in environments.items()
        for name, command in settings.get("scripts", {}).items()
    }


MODULES = {"effconv": "effconv_core.cli", "effconv-data": "effconv_data.cli"}


def helped(words):
    """Give the help of a documented command; None of pytest and ruff, and without an option."""
    if words[:2] == ["hatch", "run"]:
        words = words[2:]
    name, *rest = words
    options = [n for n, word in enumerate(rest) if word.startswith("--")]
    if not options:
        return None
    before = [word for word in rest[: options[0]] if "." not in word]
    if name in MODULES:
        whole = name == "effconv" and rest[0] in ("search", "train")
        asked = [*before, "--help-all" if whole else "--help"]
        with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
            importlib.import_module(MODULES[name]).main(asked)
        return told.getvalue()
    command = scripts()[name]
    words = shlex.split((command if isinstance(command, str) else command[0]).replace("{args}", ""))
    if words[0] != "python":
        return None
    return helped_by(*words[words.index("-m") + 1 :], *before)


@functools.cache
def helped_by(module, *words):
    """Give the help of `python -m module`, here, since a process for each takes seconds."""
    argv, sys.argv, status = sys.argv, [module, *words, "--help"], 0
    try:
        with contextlib.redirect_stdout(io.StringIO()) as told, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* found in sys.modules")
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        status = stop.code
    finally:
        sys.argv = argv
    assert not status, (module, words)
    return told.getvalue()


@pytest.mark.parametrize("page", [p for p in (*PAGES, *READMES) if list(commands(p))], ids=str)
def test_the_commands_of_a_page_exist(page):
    for words in commands(page):
        told = helped(words)
        if told is None:
            continue
        known = set(re.findall(r"--[\w.-]+", told))
        known |= {option.replace(".", "-") for option in known}
        assert {word for word in words if word.startswith("--")} <= known, " ".join(words)


@pytest.mark.parametrize("page", [*PAGES, *READMES, *EXAMPLES], ids=str)
def test_code_of_a_page_fits_into_its_width(page):
    code = "".join(blocks(page, "", "bash", "console", "python")).splitlines()
    assert [line for line in code if len(line) > 100 and re.match(r"[a-z]+ ", line)] == []
