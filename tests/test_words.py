"""Documents, help and messages use the words of the field, and no others for the same things."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHRASES = {
    r"another than": "differs from, other than",
    r"so many (?!that\b)": "this many, or the number",
    r"anew(?![=:])": "again",
    r"(?<!left )(?<!leaves it )alone(?!\()": "only, by itself",
    r"of (?:its|their|one's) own(?=\s*(?:[,.;:)]|$|(?:for|and|in|as|that|which|or)\b))": "its own",
    r"(?<!there )(?:is|are) no (?:readable|regular|JSON|text|tensor|folder|number)": "is not a",
    r"dearer": "more expensive",
    r"at place (?=[\d{])": "at index",
    r"heeded?": "followed, handled",
    r"knapsack(?! problem)": "solver",
    r"hitherto|thereof|whereof|therewith": "so far, of it, with it",
}
"""What our English has in place of the field's, and the latter."""
FORBIDDEN = re.compile("|".join(rf"\b(?:{phrase})" for phrase in PHRASES), re.IGNORECASE)
VERBS = ("Give", "Tell", "Say")
"""Docstrings of functions begin with Return, Compute, Read, Raise and the like, not with these."""


def tracked(*patterns):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def of_users(path):
    """Return whether a file is of today and of the product, and not of its tests or its past."""
    parts = path.relative_to(ROOT).parts
    return "tests" not in parts and path.name not in ("CHANGELOG.md", "report.md", "conftest.py")


DOCUMENTS = [path for path in tracked("*.md", "*.jinja", "*.html") if of_users(path)]
SOURCES = [path for path in tracked("*.py") if of_users(path)]


def prose(text):
    """Return a document without its code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`|https?://\S+", "", text)


def strings(text):
    """Yield each text of a program, with its line: docstrings, help and messages."""
    tree = ast.parse(text)
    joined = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in node.values}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(getattr(node, "value", None), str) and id(node) not in joined:
            yield node.lineno, node.value


def found(text):
    """Return the forbidden phrases of a text, each with the words around it."""
    text = re.sub(r"`[^`\n]*`", "", " ".join(text.split()))
    return [text[max(0, m.start() - 30) : m.end() + 20] for m in FORBIDDEN.finditer(text)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_use_the_words_of_the_field(path):
    assert found(prose(path.read_text("utf-8"))) == []


def test_help_messages_and_docstrings_use_the_words_of_the_field():
    assert len(SOURCES) > 150
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}"
        for path in SOURCES
        for line, text in strings(path.read_text("utf-8"))
        if " " in text
        for phrase in found(text)
    ]
    assert wrong == []


def test_docstrings_of_functions_begin_with_a_verb_of_the_field():
    wrong = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                first = (ast.get_docstring(node) or "x").split()[0]
                if first.rstrip("s") in VERBS:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {first}")
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "get the archive anew",
        "a graph of its own, up to 8",
        "is\n no readable state",
        "GPUs alone",
        "at place {}",
    ],
)
def test_phrases_are_found_across_lines(text):
    assert found(text)


@pytest.mark.parametrize(
    "text", ["there is no readable file", "are left alone", "of its own papers", "`anew=True`"]
)
def test_ordinary_english_is_not(text):
    assert not found(text)
